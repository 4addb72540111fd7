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

// fileText returns what a secret's file holds: the template with {{field}}
// replaced by the fields of a bundle, or {{value}} by a secret that is none; and
// without a template the bare value.
func fileText(name schema.SecretName, template string, value schema.SecretValue) ([]byte, error) {
	text, err := Bytes(value)
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
	filled, err := fill(template, fields)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return []byte(filled), nil
}

// fill goes through the template once, so what is filled in is never looked at:
// a value may hold {{, $ or \1.
func fill(template string, fields map[string]string) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(template, "{{")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		field, behind, closed := strings.Cut(rest, "}}")
		field = strings.TrimSpace(field)
		if !closed || !schema.ValidSecretName(field) {
			return "", fmt.Errorf("%w: behind {{ comes a field's name and }}, and nothing else", ErrTemplate)
		}
		value, ok := fields[field]
		if !ok {
			return "", fmt.Errorf("%w: the secret has no field %s", ErrTemplate, field)
		}
		b.WriteString(value)
		template = behind
	}
}
