package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"gopkg.in/yaml.v3"
)

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

func each(n *yaml.Node, what string, take func(*yaml.Node) error) error {
	if n.Kind != yaml.SequenceNode {
		return wrong(n, "%s must be a list", what)
	}
	for _, one := range n.Content {
		if err := take(one); err != nil {
			return err
		}
	}
	return nil
}
