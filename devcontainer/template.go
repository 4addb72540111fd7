package devcontainer

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// ErrTemplate says that a template and its secret do not go together.
var ErrTemplate = errors.New("the template cannot be filled in")

// fileContent returns what a secret's file holds: the template with {{field}}
// replaced by the fields of a bundle, or {{value}} by a secret that is none; and
// without a template the bare value.
func fileContent(name schema.SecretName, template string, value schema.SecretValue) ([]byte, error) {
	text, err := ValueBytes(value)
	if err != nil || template == "" {
		return text, err
	}
	fields := map[string]string{"value": string(text)}
	if value.Bundle {
		fields = nil // value too would have to be a field
		if err := json.Unmarshal(text, &fields); err != nil {
			return nil, fmt.Errorf("%w: %s is no object of texts", client.ErrProtocol, name)
		}
	}
	filled, err := fillTemplate(template, fields)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return []byte(filled), nil
}

// fillTemplate replaces each {{field}} in one pass, so values are not expanded again: a
// value may contain {{, $ or \1.
func fillTemplate(template string, fields map[string]string) (string, error) {
	var b strings.Builder
	for {
		literal, rest, found := strings.Cut(template, "{{")
		b.WriteString(literal)
		if !found {
			return b.String(), nil
		}
		field, remainder, closed := strings.Cut(rest, "}}")
		field = strings.TrimSpace(field)
		if !closed || !schema.ValidSecretName(field) {
			return "", fmt.Errorf("%w: behind {{ comes a field's name and }}, and nothing else", ErrTemplate)
		}
		value, ok := fields[field]
		if !ok {
			return "", fmt.Errorf("%w: the secret has no field %s", ErrTemplate, field)
		}
		b.WriteString(value)
		template = remainder
	}
}
