package sidecar

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
	"gopkg.in/yaml.v3"
)

// A Format is how a file, or a command's output, holds a set of secrets.
type Format string

// The formats. In JSON and YAML a secret is a string, or for a bundle an object
// of strings; in YAML a number or a boolean is the text as it is written. In
// all of them a name may stand only once.
const (
	Dotenv Format = "dotenv"
	JSON   Format = "json"
	YAML   Format = "yaml"
)

// FormatOf tells a file's format by its name: .json, .yaml or .yml, and dotenv
// for .env, .env.local and the like. It is empty for any other.
func FormatOf(name string) Format {
	name = name[strings.LastIndexByte(name, '/')+1:]
	switch {
	case strings.HasSuffix(name, ".json"):
		return JSON
	case strings.HasSuffix(name, ".yaml"), strings.HasSuffix(name, ".yml"):
		return YAML
	case strings.HasSuffix(name, ".env"), strings.HasPrefix(name, ".env"):
		return Dotenv
	}
	return ""
}

// parse reads a set. Errors say the line and the rule, and hold nothing of the
// text but names that are valid. A text without a single byte is an error: it is
// a file that is about to be written far more often than an empty set, which a
// comment or {} says.
func (f Format) parse(text []byte) (schema.PushRequest, error) {
	set := newSet()
	if len(text) == 0 {
		return set, errors.New("it is empty: for no secrets write {}, or in dotenv a comment")
	}
	if !utf8.Valid(text) {
		return set, errors.New("it is not UTF-8")
	}
	var err error
	switch f {
	case JSON:
		set.Secrets, err = wire.ParseSecrets(text)
	case YAML:
		err = parseYAML(text, &set)
	case Dotenv:
		err = parseDotenv(string(text), set.Secrets)
	default:
		err = errors.New("its format is not known: say --format dotenv, yaml or json")
	}
	return set, err
}

func parseYAML(text []byte, set *schema.PushRequest) error {
	d := yaml.NewDecoder(strings.NewReader(string(text)))
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil {
		// The parser's text quotes its input; its line is all that is kept.
		line := 0
		if n, _ := fmt.Sscanf(err.Error(), "yaml: line %d:", &line); n == 1 {
			return atLine(line, "it is not valid YAML")
		}
		return errors.New("it is not valid YAML")
	}
	var second yaml.Node
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		return errors.New("it has more than one YAML document")
	}
	return eachYAML(doc.Content[0], func(name schema.SecretName, n *yaml.Node) error {
		if n.Kind == yaml.MappingNode {
			fields := map[schema.SecretName]string{}
			set.Secrets[name] = schema.Value{Fields: fields}
			return eachYAML(n, func(field schema.SecretName, n *yaml.Node) error {
				if n.Tag == "!!binary" {
					return atLine(n.Line, "field %s of %s is binary: make it a secret of its own", field, name)
				}
				var err error
				fields[field], err = scalarYAML(n)
				return err
			})
		}
		if n.Tag == "!!binary" {
			binary, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
			if err != nil {
				return atLine(n.Line, "%s is not base64", name)
			}
			set.SecretsB64[name] = binary
			return nil
		}
		value, err := scalarYAML(n)
		set.Secrets[name] = schema.Value{Text: value}
		return err
	})
}

// eachYAML reads a mapping of valid names, each of which stands once. Aliases
// are refused: a store needs none, and a bomb is made of them.
func eachYAML(n *yaml.Node, member func(schema.SecretName, *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return atLine(n.Line, "it is not a mapping of names")
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Anchor != "" || value.Anchor != "" || key.Kind == yaml.AliasNode || value.Kind == yaml.AliasNode || key.Tag == "!!merge":
			return atLine(key.Line, "anchors, aliases and merge keys are not allowed")
		case key.Kind != yaml.ScalarNode || !schema.ValidSecretName(key.Value):
			return atLine(key.Line, "a name does not match %s", schema.SecretNamePattern)
		case seen[key.Value]:
			return atLine(key.Line, "%s stands twice", key.Value)
		}
		seen[key.Value] = true
		if err := member(schema.SecretName(key.Value), value); err != nil {
			return err
		}
	}
	return nil
}

func scalarYAML(n *yaml.Node) (string, error) {
	switch {
	case n.Kind != yaml.ScalarNode:
		return "", atLine(n.Line, "a value is neither text nor a mapping of texts")
	case n.Tag == "!!null":
		return "", atLine(n.Line, `a value is missing: write "" for an empty one`)
	case n.Tag != "!!str" && n.Tag != "!!int" && n.Tag != "!!float" && n.Tag != "!!bool" && n.Tag != "!!timestamp":
		return "", atLine(n.Line, "a value has a tag that is not known")
	}
	return n.Value, nil
}

func atLine(line int, format string, args ...any) error {
	return fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
}
