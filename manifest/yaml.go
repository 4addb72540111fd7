package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// parseDocument parses a text that contains exactly one YAML document, and returns the top
// node of the document. It refuses anchors, aliases, and merge keys, because a small file with
// aliases can expand to a huge document.
func parseDocument(text []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errorAt(nil, "the file is empty")
		}
		return nil, syntaxError(text, err)
	}
	var extra yaml.Node
	switch err := decoder.Decode(&extra); {
	case err == nil:
		return nil, errorAt(nil, "the file has more than one YAML document")
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(text, err)
	}
	if node := findAlias(&doc); node != nil {
		return nil, errorAt(node, "anchors, aliases, and merge keys are not allowed")
	}
	return doc.Content[0], nil
}

// syntaxError returns an Error for an error of the YAML decoder, with the same line if the
// decoder reports a line. It drops the decoder's message, because the message can quote any
// part of the file.
func syntaxError(text []byte, err error) error {
	var line int
	if strings.Contains(err.Error(), "tab character") || strings.Contains(err.Error(), "character that cannot start any token") {
		// For a tab in an indentation, the decoder reports a wrong line or no line. So search
		// the text for the tab.
		for indented := range strings.Lines(string(text)) {
			line++
			if indentation := indented[:len(indented)-len(strings.TrimLeft(indented, " \t"))]; strings.Contains(indentation, "\t") {
				return newError(line, "YAML does not allow tabs for indentation: use spaces")
			}
		}
		line = 0
	}
	if n, _ := fmt.Sscanf(err.Error(), "yaml: line %d:", &line); n == 1 {
		return newError(line, "the file is not valid YAML")
	}
	return newError(0, "the file is not valid YAML")
}

func findAlias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode || n.Anchor != "" || n.Tag == "!!merge" {
		return n
	}
	for _, child := range n.Content {
		if found := findAlias(child); found != nil {
			return found
		}
	}
	return nil
}

// readFields parses a mapping. For each allowed key, readers contains the function that parses
// the value. An unknown key or a duplicate key is an error.
func readFields(n *yaml.Node, subject constant, readers map[string]func(*yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return errorAt(n, "%s must be a mapping", subject)
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		readValue := readers[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || readValue == nil:
			return errorAt(key, "unknown key %s in %s: the keys are %s", quote(key.Value), subject, constant(sortedKeys(readers)))
		case seen[key.Value]:
			return errorAt(key, "duplicate key %s in %s", key.Value, subject)
		}
		seen[key.Value] = true
		if err := readValue(n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// sortedKeys formats the allowed keys for an error message.
func sortedKeys(readers map[string]func(*yaml.Node) error) string {
	var names []string
	for name := range readers {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func readString(n *yaml.Node, subject constant) (string, error) {
	switch {
	case n.Kind == yaml.SequenceNode && len(n.Content) == 1 && n.Content[0].Kind == yaml.ScalarNode:
		return "", errorAt(n, "%s must be a string, not a list: write %s: %s", subject, subject, quote(n.Content[0].Value))
	case n.Kind == yaml.SequenceNode:
		return "", errorAt(n, "%s must be a string, not a list", subject)
	case n.Kind != yaml.ScalarNode:
		return "", errorAt(n, "%s must be a string, not a mapping", subject)
	case n.Tag == "!!null":
		return "", errorAt(n, "%s is empty", subject)
	case n.Tag != "!!str":
		return "", errorAt(n, "%s must be a string: write %s: %s", subject, subject, quote(n.Value))
	}
	return n.Value, nil
}

// quote shortens text to at most 40 bytes, and quotes it for an error message. It also escapes
// spaces, so the quoted text cannot look like a part of the message.
func quote(text string) string {
	return strings.ReplaceAll(fmt.Sprintf("%+q", shorten(text)), " ", `\x20`)
}

// shorten returns at most the first 40 bytes of text.
func shorten(text string) string { return text[:min(len(text), 40)] }

func readList(n *yaml.Node, subject constant, readItem func(*yaml.Node) error) error {
	if n.Kind != yaml.SequenceNode {
		return errorAt(n, "%s must be a list", subject)
	}
	for _, item := range n.Content {
		if err := readItem(item); err != nil {
			return err
		}
	}
	return nil
}
