package store

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/schema"
	"gopkg.in/yaml.v3"
)

func parseYAML(text []byte) (Set, error) {
	d := yaml.NewDecoder(strings.NewReader(string(text)))
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil {
		// Use only the line number of the parser's error, because the error's text
		// contains parts of the input, which can be secrets.
		line := 0
		if n, _ := fmt.Sscanf(err.Error(), "yaml: line %d:", &line); n == 1 {
			return nil, errorAtLine(line, "invalid YAML")
		}
		return nil, errors.New("invalid YAML")
	}
	var second yaml.Node
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("the text contains more than one YAML document")
	}
	set := Set{}
	source := yamlSource{rest: string(text), line: 1, column: 1}
	err := forEachMember(doc.Content[0], func(name schema.SecretName, n *yaml.Node) error {
		if err := source.checkQuoted(n); err != nil {
			return err
		}
		if n.Kind == yaml.MappingNode {
			fields := map[schema.SecretName][]byte{}
			set[name] = Value{Fields: fields}
			return forEachMember(n, func(field schema.SecretName, n *yaml.Node) error {
				if err := source.checkQuoted(n); err != nil {
					return err
				}
				if n.Tag == "!!binary" {
					return errorAtLine(n.Line, "field %s of %s is binary: store the binary value as a separate secret", field, name)
				}
				if n.Kind != yaml.ScalarNode {
					return errorAtLine(n.Line, "field %s of %s is not a string", field, name)
				}
				var err error
				fields[field], err = scalarText(n)
				return err
			})
		}
		if n.Tag == "!!binary" {
			binary, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
			if err != nil {
				return errorAtLine(n.Line, "the value of %s is not valid base64", name)
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

// forEachMember calls member for each name in a YAML mapping. It refuses invalid names
// and duplicate names.
//
// forEachMember also refuses anchors, aliases, and merge keys. A store does not need
// these features, and nested aliases can expand to a very large document (a YAML bomb).
func forEachMember(n *yaml.Node, member func(schema.SecretName, *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return errorAtLine(n.Line, "expected a mapping of names to values")
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Anchor != "" || value.Anchor != "" || key.Kind == yaml.AliasNode || value.Kind == yaml.AliasNode || key.Tag == "!!merge":
			return errorAtLine(key.Line, "anchors, aliases, and merge keys are not allowed")
		case key.Kind != yaml.ScalarNode || !schema.ValidSecretName(key.Value):
			return errorAtLine(key.Line, "the name does not match %s", schema.SecretNamePattern)
		case seen[key.Value]:
			return errorAtLine(key.Line, "duplicate name %s", key.Value)
		}
		seen[key.Value] = true
		if err := member(schema.SecretName(key.Value), value); err != nil {
			return err
		}
	}
	return nil
}

var yamlQuoted = quotedForm{
	entry:     "NAME: value",
	isEntry:   func(rows []string, i int) bool { return yamlEntry.MatchString(rows[i]) },
	trailing:  regexp.MustCompile(`^($|[^#])`), // the YAML parser refuses most other characters
	lineBreak: regexp.MustCompile("\r\n|[\r\n\u0085\u2028\u2029]"),
}

// yamlEntry matches a line that looks like another NAME: value. The names are those of
// schema.SecretNamePattern.
var yamlEntry = regexp.MustCompile(`^[\s{,?-]*([A-Za-z0-9_][A-Za-z0-9_.-]*\s*:(\s|$)|["'][A-Za-z0-9_][A-Za-z0-9_.-]*["']\s*:)`)

// A yamlSource finds nodes in a YAML text. The nodes must be in the order of the text.
type yamlSource struct {
	rest         string // begins at the position (line, column)
	line, column int    // as in yaml.Node: both begin with 1, and a column is a character
}

// checkQuoted returns an error if n is a quoted scalar whose closing quote is probably missing.
func (s *yamlSource) checkQuoted(n *yaml.Node) error {
	quote := byte('\'')
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		quote = '"'
	case n.Style&yaml.SingleQuotedStyle == 0:
		return nil
	}
	for ; s.line < n.Line; s.line, s.column = s.line+1, 1 {
		if lineBreak := yamlQuoted.lineBreak.FindStringIndex(s.rest); lineBreak != nil {
			s.rest = s.rest[lineBreak[1]:]
		}
	}
	for ; s.column < n.Column; s.column++ {
		_, size := utf8.DecodeRuneInString(s.rest)
		s.rest = s.rest[size:]
	}
	begin := strings.IndexByte(s.rest, quote) + 1 // a tag can precede the quote
	end := begin
	for end < len(s.rest) && s.rest[end] != quote || quote == '\'' && strings.HasPrefix(s.rest[min(end, len(s.rest)):], "''") {
		if s.rest[end] == '\'' && quote == '\'' || s.rest[end] == '\\' && quote == '"' {
			end++ // skip an escape
		}
		end++
	}
	if begin == 0 || end >= len(s.rest) {
		return errorAtLine(n.Line, "cannot find the quotes of this value: write NAME and the value in one line")
	}
	// Pass only one character after the quote. A search for the end of the line would need quadratic time
	// for a text with many values in one line.
	return yamlQuoted.check(n.Line, s.rest[begin:end], s.rest[end+1:min(end+2, len(s.rest))])
}

// scalarText returns the value of a YAML string, or the text of a YAML number, boolean,
// or time exactly as the text is in the file.
func scalarText(n *yaml.Node) ([]byte, error) {
	switch {
	case n.Kind != yaml.ScalarNode:
		return nil, errorAtLine(n.Line, "the value must be a string or a mapping of strings")
	case n.Tag == "!!null":
		return nil, errorAtLine(n.Line, "the value is missing: write the value, or remove the name")
	case n.Tag != "!!str" && n.Tag != "!!int" && n.Tag != "!!float" && n.Tag != "!!bool" && n.Tag != "!!timestamp":
		return nil, errorAtLine(n.Line, "the value has an unknown YAML tag")
	}
	return []byte(n.Value), nil
}
