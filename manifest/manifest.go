// Package manifest reads a project's manifest: the YAML file whose secrets are
// the allowlist that gates every get.
//
// The text comes from a tree that untrusted code can write, so it is bounded in
// size, has no aliases to expand, and is refused at the first thing that is not
// known. Errors name the file, the line and the rule; what they quote of the
// text is short and printable.
package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/schema"
	"gopkg.in/yaml.v3"
)

// A Manifest is a manifest that keeps every rule. It is immutable.
type Manifest struct {
	schema.Manifest
	// SHA256 is of the text, in lower-case hex.
	SHA256 string

	allowlist []schema.SecretName // sorted
}

// Allows reports whether name is on the allowlist.
func (m *Manifest) Allows(name schema.SecretName) bool {
	_, ok := m.Secrets[name]
	return ok
}

// Allowlist returns the names that can be fetched, sorted. The slice is the
// manifest's own and must not be changed.
func (m *Manifest) Allowlist() []schema.SecretName { return m.allowlist }

// Parse reads the text of the manifest of a project, which is named by its
// directory. Every error is an *Error.
func Parse(text []byte, project schema.ProjectName) (*Manifest, error) {
	switch {
	case len(text) > schema.MaxManifest:
		return nil, errorAt(nil, "it has %d bytes, and %d is the most", len(text), schema.MaxManifest)
	case !utf8.Valid(text):
		return nil, errorAt(nil, "it is not UTF-8")
	}
	root, err := parseDocument(text)
	if err != nil {
		return nil, err
	}
	m := &Manifest{}
	var helpers *yaml.Node // read last, because they name secrets
	if err := readFields(root, "the manifest", map[string]func(*yaml.Node) error{
		"schema_version": func(n *yaml.Node) error {
			if n.Tag != "!!int" || n.Value != fmt.Sprint(schema.ManifestVersion) {
				return errorAt(n, "schema_version must be %d", schema.ManifestVersion)
			}
			m.SchemaVersion = schema.ManifestVersion
			return nil
		},
		"project": func(n *yaml.Node) error {
			if n.Kind != yaml.ScalarNode || n.Value != string(project) {
				return errorAt(n, "project must be %q, the base name of the project's directory", project)
			}
			m.Project = project
			return nil
		},
		"description": func(n *yaml.Node) error {
			text, err := readString(n, "description")
			if err == nil && utf8.RuneCountInString(text) > schema.MaxDescription {
				err = errorAt(n, "description has more than %d characters", schema.MaxDescription)
			}
			m.Description = text
			return err
		},
		"secrets": func(n *yaml.Node) (err error) { m.Secrets, err = readSecrets(n); return err },
		"helpers": func(n *yaml.Node) error { helpers = n; return nil },
	}); err != nil {
		return nil, err
	}
	switch {
	case m.SchemaVersion == 0:
		return nil, errorAt(root, "schema_version is missing: write schema_version: %d", schema.ManifestVersion)
	case m.Project == "":
		return nil, errorAt(root, "project is missing: write project: %s", project)
	case m.Secrets == nil:
		return nil, errorAt(root, "secrets is missing: write secrets: {} to allow none")
	}
	if helpers != nil {
		if m.Helpers, err = readHelpers(helpers, m.Secrets); err != nil {
			return nil, err
		}
	}
	for name := range m.Secrets {
		m.allowlist = append(m.allowlist, name)
	}
	slices.Sort(m.allowlist)
	if m.allowlist == nil {
		m.allowlist = []schema.SecretName{}
	}
	sum := sha256.Sum256(text)
	m.SHA256 = hex.EncodeToString(sum[:])
	return m, nil
}
