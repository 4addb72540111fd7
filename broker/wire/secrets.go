package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/keyhatch/keyhatch/schema"
)

// ParseSecrets reads a set of secrets that people write as JSON: an object
// whose members are strings, or for bundles objects of strings. It is strict as
// the wire is. Errors say the line and the rule, and hold nothing of the text
// but names that are valid.
func ParseSecrets(text []byte) (map[schema.SecretName]schema.Value, error) {
	if len(text) > schema.MaxPush {
		return nil, fmt.Errorf("it is over %d bytes, more than a push takes", schema.MaxPush)
	}
	p := secretsParser{text, jsontext.NewDecoder(bytes.NewBuffer(text))}
	secrets := map[schema.SecretName]schema.Value{}
	if err := p.object(func(name schema.SecretName) error {
		var value schema.Value
		var err error
		switch p.d.PeekKind() {
		case jsontext.KindString:
			value.Text, err = p.string()
		case jsontext.KindBeginObject:
			value.Fields = map[schema.SecretName]string{}
			err = p.object(func(field schema.SecretName) error {
				if p.d.PeekKind() != jsontext.KindString {
					return p.wrong("field %s of %s is not a string", field, name)
				}
				value.Fields[field], err = p.string()
				return err
			})
		default:
			err = p.wrong("%s is neither a string nor an object of strings", name)
		}
		secrets[name] = value
		return err
	}); err != nil {
		return nil, err
	}
	if _, err := p.d.ReadToken(); err != io.EOF {
		return nil, p.wrong("there is data after the JSON object")
	}
	return secrets, nil
}

type secretsParser struct {
	text []byte
	d    *jsontext.Decoder
}

// wrong is an error with the line that was reached.
func (p secretsParser) wrong(format string, args ...any) error {
	return p.wrongAt(p.d.InputOffset(), format, args...)
}

func (p secretsParser) wrongAt(offset int64, format string, args ...any) error {
	line := 1 + bytes.Count(p.text[:offset], []byte("\n"))
	return fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
}

// notJSON stands for a parser's own errors, which quote what they cannot read.
// Of them only the place is kept.
func (p secretsParser) notJSON(err error) error {
	offset := p.d.InputOffset()
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		offset = min(e.ByteOffset, int64(len(p.text)))
	}
	return p.wrongAt(offset, "it is not a JSON object in UTF-8, with each name once")
}

func (p secretsParser) string() (string, error) {
	token, err := p.d.ReadToken()
	if err != nil {
		return "", p.notJSON(err)
	}
	return token.String(), nil
}

func (p secretsParser) object(member func(schema.SecretName) error) error {
	if token, err := p.d.ReadToken(); err != nil || token.Kind() != jsontext.KindBeginObject {
		return p.notJSON(err)
	}
	for p.d.PeekKind() == jsontext.KindString {
		name, err := p.string()
		if err != nil {
			return err
		}
		if !schema.ValidSecretName(name) {
			return p.wrong("a name does not match %s", schema.SecretNamePattern)
		}
		if err := member(schema.SecretName(name)); err != nil {
			return err
		}
	}
	if _, err := p.d.ReadToken(); err != nil {
		return p.notJSON(err)
	}
	return nil
}
