// Package manifest parses the manifests of projects, and the declarations that contain
// approved manifests. A manifest is a YAML file. The keys under secrets in the manifest are
// the project's allowlist.
//
// Untrusted code can write a manifest. Therefore Parse limits the size of the text, and
// refuses YAML aliases and unknown keys. An error of Parse contains the violated rule, and the
// line if the error is about a part of the file. If such an error quotes the manifest, the
// quote is short and contains only printable characters.
package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/schema"
	"gopkg.in/yaml.v3"
)

// A Manifest is a valid manifest. It is immutable.
type Manifest struct {
	Project     schema.ProjectName
	Description string
	Helpers     *schema.Helpers // nil if the manifest has no section helpers

	hash      [sha256.Size]byte   // of the text
	allowlist []schema.SecretName // sorted
	// unusual contains only the injections that differ from the default (see
	// defaultInjection). This saves memory, because most secrets have the default, and the
	// broker stores the manifests of many projects.
	unusual map[schema.SecretName]*schema.Injection
}

// Allows reports whether name is on the allowlist.
func (m *Manifest) Allows(name schema.SecretName) bool {
	_, ok := slices.BinarySearch(m.allowlist, name)
	return ok
}

// SHA256 returns the SHA-256 hash of the manifest's text, in lower-case hex.
func (m *Manifest) SHA256() string { return hex.EncodeToString(m.hash[:]) }

// Allowlist returns the sorted names on the allowlist. Do not change the slice.
func (m *Manifest) Allowlist() []schema.SecretName { return m.allowlist }

// Injection returns how the programs of the project receive the secret name: in which variable
// or in which file. The secret must be on the allowlist.
func (m *Manifest) Injection(name schema.SecretName) schema.Injection {
	if in := m.unusual[name]; in != nil {
		return *in
	}
	return defaultInjection(name)
}

// Injections returns the result of Injection for each secret on the allowlist.
func (m *Manifest) Injections() map[schema.SecretName]*schema.Injection {
	all := make(map[schema.SecretName]*schema.Injection, len(m.allowlist))
	for _, name := range m.allowlist {
		in := m.Injection(name)
		all[name] = &in
	}
	return all
}

var notInNames = regexp.MustCompile(`[^a-z0-9_]+`)

// SuggestName returns a valid project name that is similar to text. If text contains no ASCII
// letter and no digit, SuggestName returns NAME.
func SuggestName(text string) string {
	name := strings.TrimLeft(notInNames.ReplaceAllString(strings.ToLower(text), "-"), "-_")
	name = strings.TrimRight(name[:min(len(name), 64)], "-")
	if name == "" {
		return "NAME"
	}
	return name
}

// Parse parses the text of a manifest. Every error is an *Error.
func Parse(text []byte) (*Manifest, error) {
	switch {
	case len(text) > schema.MaxManifest:
		return nil, errorAt(nil, "the file has %d bytes, but the limit is %d", len(text), schema.MaxManifest)
	case !utf8.Valid(text):
		return nil, errorAt(nil, "the file is not valid UTF-8")
	}
	root, err := parseDocument(text)
	if err != nil {
		return nil, err
	}
	m := &Manifest{}
	hasVersion := false
	var secrets map[schema.SecretName]*schema.Injection
	var helpers *yaml.Node // parsed last, because helpers refer to secrets
	if err := readFields(root, "the manifest", map[string]func(*yaml.Node) error{
		"schema_version": func(n *yaml.Node) error {
			if n.Tag != "!!int" || n.Value != fmt.Sprint(schema.ManifestVersion) {
				return errorAt(n, "schema_version must be %d", schema.ManifestVersion)
			}
			hasVersion = true
			return nil
		},
		"project": func(n *yaml.Node) error {
			if n.Kind != yaml.ScalarNode {
				_, err := readString(n, "project")
				return err
			}
			if !schema.ValidProjectName(n.Value) {
				return errorAt(n, "the project name %s does not match %s: write project: %s", quote(n.Value), constant(schema.ProjectNamePattern), SuggestName(n.Value))
			}
			m.Project = schema.ProjectName(n.Value)
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
		"secrets": func(n *yaml.Node) (err error) { secrets, err = readSecrets(n); return err },
		"helpers": func(n *yaml.Node) error { helpers = n; return nil },
	}); err != nil {
		return nil, err
	}
	switch {
	case !hasVersion:
		return nil, errorAt(root, "schema_version is missing: write schema_version: %d", schema.ManifestVersion)
	case m.Project == "":
		return nil, errorAt(root, "project is missing: write project: NAME")
	case secrets == nil:
		return nil, errorAt(root, "secrets is missing: write secrets: {} to allow no secrets")
	}
	if helpers != nil {
		if m.Helpers, err = readHelpers(helpers, secrets); err != nil {
			return nil, err
		}
	}
	m.allowlist = make([]schema.SecretName, 0, len(secrets))
	for name, in := range secrets {
		m.allowlist = append(m.allowlist, name)
		if *in != defaultInjection(name) {
			if m.unusual == nil {
				m.unusual = map[schema.SecretName]*schema.Injection{}
			}
			m.unusual[name] = in
		}
	}
	slices.Sort(m.allowlist)
	m.hash = sha256.Sum256(text)
	return m, nil
}
