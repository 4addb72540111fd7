package devcontainer

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// ErrTemplate means that a template is invalid, or that the secret does not have a field that
// the template uses.
var ErrTemplate = errors.New("cannot fill in the template")

// fileContent returns the content of a secret's file. Without a template, the content is the
// value of the secret. In the template of a bundle, fileContent replaces {{FIELD}} with the
// field of this name. In the template of any other secret, it replaces {{value}} with the
// value of the secret.
func fileContent(name schema.SecretName, template string, value schema.SecretValue) ([]byte, error) {
	text, err := ValueBytes(value)
	if err != nil || template == "" {
		return text, err
	}
	fields := map[string]string{"value": string(text)}
	if value.Bundle {
		fields = nil // in the template of a bundle, {{value}} means the field with the name value
		if err := json.Unmarshal(text, &fields); err != nil {
			return nil, fmt.Errorf("%w: the bundle %s is not a JSON object of strings", client.ErrProtocol, name)
		}
	}
	filled, err := fillTemplate(template, fields)
	if err != nil {
		return nil, fmt.Errorf("cannot render %s: %w", name, err)
	}
	return []byte(filled), nil
}

// fillTemplate replaces each {{FIELD}} with the field's value in one pass. It does not search
// for placeholders in the inserted values, so a value may contain {{, $, or \1.
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
			return "", fmt.Errorf("%w: {{ must be followed by the name of a field and }}, as in {{value}}", ErrTemplate)
		}
		value, ok := fields[field]
		if !ok {
			return "", fmt.Errorf("%w: the secret does not have a field %s", ErrTemplate, field)
		}
		b.WriteString(value)
		template = remainder
	}
}
