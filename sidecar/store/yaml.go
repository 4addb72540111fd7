package store

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
	"gopkg.in/yaml.v3"
)

func parseYAML(text []byte) (Set, error) {
	d := yaml.NewDecoder(strings.NewReader(string(text)))
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil {
		// The parser's text quotes its input; its line is all that is kept.
		line := 0
		if n, _ := fmt.Sscanf(err.Error(), "yaml: line %d:", &line); n == 1 {
			return nil, errorAtLine(line, "it is not valid YAML")
		}
		return nil, errors.New("it is not valid YAML")
	}
	var second yaml.Node
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has more than one YAML document")
	}
	set := Set{}
	err := forEachMember(doc.Content[0], func(name schema.SecretName, n *yaml.Node) error {
		if n.Kind == yaml.MappingNode {
			fields := map[schema.SecretName][]byte{}
			set[name] = Value{Fields: fields}
			return forEachMember(n, func(field schema.SecretName, n *yaml.Node) error {
				if n.Tag == "!!binary" {
					return errorAtLine(n.Line, "field %s of %s is binary: make it a secret of its own", field, name)
				}
				var err error
				fields[field], err = scalarText(n)
				return err
			})
		}
		if n.Tag == "!!binary" {
			binary, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
			if err != nil {
				return errorAtLine(n.Line, "%s is not base64", name)
			}
			set[name] = Value{Bytes: binary, Binary: true}
			return nil
		}
		value, err := scalarText(n)
		set[name] = Value{Bytes: value}
		return err
	})
	if err != nil {
		return nil, err
	}
	return set, nil
}

// forEachMember reads a mapping of valid names, each of which stands once. Aliases
// are refused: a store needs none, and a bomb is made of them.
func forEachMember(n *yaml.Node, member func(schema.SecretName, *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return errorAtLine(n.Line, "it is not a mapping of names")
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Anchor != "" || value.Anchor != "" || key.Kind == yaml.AliasNode || value.Kind == yaml.AliasNode || key.Tag == "!!merge":
			return errorAtLine(key.Line, "anchors, aliases and merge keys are not allowed")
		case key.Kind != yaml.ScalarNode || !schema.ValidSecretName(key.Value):
			return errorAtLine(key.Line, "a name does not match %s", schema.SecretNamePattern)
		case seen[key.Value]:
			return errorAtLine(key.Line, "%s stands twice", key.Value)
		}
		seen[key.Value] = true
		if err := member(schema.SecretName(key.Value), value); err != nil {
			return err
		}
	}
	return nil
}

// scalarText returns the text of a string, a number, a boolean or a time, as it is
// written.
func scalarText(n *yaml.Node) ([]byte, error) {
	switch {
	case n.Kind != yaml.ScalarNode:
		return nil, errorAtLine(n.Line, "a value is neither text nor a mapping of texts")
	case n.Tag == "!!null":
		return nil, errorAtLine(n.Line, `a value is missing: write "" for an empty one`)
	case n.Tag != "!!str" && n.Tag != "!!int" && n.Tag != "!!float" && n.Tag != "!!bool" && n.Tag != "!!timestamp":
		return nil, errorAtLine(n.Line, "a value has a tag that is not known")
	}
	return []byte(n.Value), nil
}
