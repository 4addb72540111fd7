// Package manifest reads a project's manifest: the YAML file whose secrets are
// the allowlist that gates every get.
//
// The text comes from a tree that untrusted code can write, so it is bounded in
// size, has no aliases to expand, and is refused at the first thing that is not
// known. Errors name the file, the line and the rule; what they quote of the
// text is short and printable.
package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
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

// An Error says which rule a manifest breaks, and where.
type Error struct {
	Line int // 0 where it is about the file as a whole
	Rule string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return "manifest: " + e.Rule
	}
	return fmt.Sprintf("manifest line %d: %s", e.Line, e.Rule)
}

func wrong(node *yaml.Node, format string, args ...any) error {
	line := 0
	if node != nil {
		line = node.Line
	}
	return &Error{line, fmt.Sprintf(format, args...)}
}

// Parse reads the text of the manifest of a project, which is named by its
// directory. Every error is an *Error.
func Parse(text []byte, project schema.ProjectName) (*Manifest, error) {
	switch {
	case len(text) > schema.MaxManifest:
		return nil, wrong(nil, "it has %d bytes, and %d is the most", len(text), schema.MaxManifest)
	case !utf8.Valid(text):
		return nil, wrong(nil, "it is not UTF-8")
	}
	root, err := document(text)
	if err != nil {
		return nil, err
	}
	m := &Manifest{}
	var helpers *yaml.Node // read last, because they name secrets
	if err := fields(root, "the manifest", map[string]func(*yaml.Node) error{
		"schema_version": func(n *yaml.Node) error {
			if n.Tag != "!!int" || n.Value != fmt.Sprint(schema.ManifestVersion) {
				return wrong(n, "schema_version must be %d", schema.ManifestVersion)
			}
			m.SchemaVersion = schema.ManifestVersion
			return nil
		},
		"project": func(n *yaml.Node) error {
			if n.Kind != yaml.ScalarNode || n.Value != string(project) {
				return wrong(n, "project must be %q, the base name of the project's directory", project)
			}
			m.Project = project
			return nil
		},
		"description": func(n *yaml.Node) error {
			text, err := stringOf(n, "description")
			if err == nil && utf8.RuneCountInString(text) > schema.MaxDescription {
				err = wrong(n, "description has more than %d characters", schema.MaxDescription)
			}
			m.Description = text
			return err
		},
		"secrets": func(n *yaml.Node) error { return m.readSecrets(n) },
		"helpers": func(n *yaml.Node) error { helpers = n; return nil },
	}); err != nil {
		return nil, err
	}
	switch {
	case m.SchemaVersion == 0:
		return nil, wrong(root, "schema_version is missing: write schema_version: %d", schema.ManifestVersion)
	case m.Project == "":
		return nil, wrong(root, "project is missing: write project: %s", project)
	case m.Secrets == nil:
		return nil, wrong(root, "secrets is missing: write secrets: {} to allow none")
	}
	if helpers != nil {
		if err := m.readHelpers(helpers); err != nil {
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

// document parses one YAML document that has neither anchors nor aliases, which
// a manifest does not need and a bomb is made of.
func document(text []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, wrong(nil, "it is empty")
		}
		return nil, syntax(err)
	}
	var second yaml.Node
	switch err := decoder.Decode(&second); {
	case err == nil:
		return nil, wrong(nil, "it has more than one document")
	case !errors.Is(err, io.EOF):
		return nil, syntax(err)
	}
	if node := aliasIn(&doc); node != nil {
		return nil, wrong(node, "anchors, aliases and merge keys are not allowed")
	}
	return doc.Content[0], nil
}

// syntax keeps the line of a YAML error and leaves its text, which may quote
// anything, behind.
func syntax(err error) error {
	var line int
	if n, _ := fmt.Sscanf(err.Error(), "yaml: line %d:", &line); n == 1 {
		return &Error{line, "it is not valid YAML"}
	}
	return &Error{0, "it is not valid YAML"}
}

func aliasIn(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode || n.Anchor != "" || n.Tag == "!!merge" {
		return n
	}
	for _, child := range n.Content {
		if found := aliasIn(child); found != nil {
			return found
		}
	}
	return nil
}

// fields reads a mapping whose keys are all known.
func fields(n *yaml.Node, what string, known map[string]func(*yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return wrong(n, "%s must be a mapping", what)
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		read := known[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || read == nil:
			return wrong(key, "%s has no key %s: the keys are %s", what, quoted(key.Value), keys(known))
		case seen[key.Value]:
			return wrong(key, "%s stands twice in %s", key.Value, what)
		}
		seen[key.Value] = true
		if err := read(n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func keys(known map[string]func(*yaml.Node) error) string {
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	return fmt.Sprint(names)
}

func stringOf(n *yaml.Node, what string) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		return "", wrong(n, "%s must be a string: put it in quotes", what)
	}
	return n.Value, nil
}

// quoted makes any text fit to be shown.
func quoted(text string) string {
	if len(text) > 40 {
		text = text[:40]
	}
	return fmt.Sprintf("%+q", text)
}
