package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/keyhatch/keyhatch/schema"
)

// ParseSecrets parses a JSON file of secrets that a user wrote. The file contains one JSON
// object, and each member of this object is a secret. The value of a member is a string, or
// an object of strings if the secret is a bundle. ParseSecrets is as strict as Decode. An
// error contains the rule that the file violates. It also contains the line number, unless the
// file is too large. The error can contain a valid name from the file, but never a value.
func ParseSecrets(text []byte) (map[schema.SecretName]schema.Value, error) {
	if len(text) > schema.MaxPush {
		return nil, fmt.Errorf("the text is longer than %d bytes, which is the maximum size of a push", schema.MaxPush)
	}
	p := secretsParser{text, jsontext.NewDecoder(bytes.NewBuffer(text))}
	secrets := map[schema.SecretName]schema.Value{}
	if err := p.readObject(func(name schema.SecretName) error {
		var value schema.Value
		var err error
		switch p.decoder.PeekKind() {
		case jsontext.KindString:
			value.Text, err = p.readString()
		case jsontext.KindBeginObject:
			value.Fields = map[schema.SecretName]string{}
			err = p.readObject(func(field schema.SecretName) error {
				if p.decoder.PeekKind() != jsontext.KindString {
					return p.errorHere("field %s of %s is not a string", field, name)
				}
				value.Fields[field], err = p.readString()
				return err
			})
		default:
			err = p.errorHere("the value of %s must be a string or an object of strings", name)
		}
		secrets[name] = value
		return err
	}); err != nil {
		return nil, err
	}
	if _, err := p.decoder.ReadToken(); err != io.EOF {
		return nil, p.errorHere("unexpected data after the JSON object")
	}
	return secrets, nil
}

type secretsParser struct {
	text    []byte
	decoder *jsontext.Decoder
}

// errorHere returns an error that contains the number of the line that the decoder has reached.
func (p secretsParser) errorHere(format string, args ...any) error {
	return p.errorAt(p.decoder.InputOffset(), format, args...)
}

// errorAt returns an error that contains the number of the line at an offset in the text.
func (p secretsParser) errorAt(offset int64, format string, args ...any) error {
	line := 1 + bytes.Count(p.text[:offset], []byte("\n"))
	return fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
}

// syntaxError replaces an error of the decoder, because the decoder's error can quote the
// text. The new error contains the line number, but no part of the text.
func (p secretsParser) syntaxError(err error) error {
	offset := p.decoder.InputOffset()
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		offset = min(e.ByteOffset, int64(len(p.text)))
	}
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return p.errorAt(offset, "duplicate name in an object")
	}
	return p.errorAt(offset, "the text is not a JSON object in UTF-8")
}

func (p secretsParser) readString() (string, error) {
	token, err := p.decoder.ReadToken()
	if err != nil {
		return "", p.syntaxError(err)
	}
	return token.String(), nil
}

// readObject reads an object. For each member, it reads the name and then calls
// readMember, which must read the value.
func (p secretsParser) readObject(readMember func(schema.SecretName) error) error {
	if token, err := p.decoder.ReadToken(); err != nil || token.Kind() != jsontext.KindBeginObject {
		return p.syntaxError(err)
	}
	for p.decoder.PeekKind() == jsontext.KindString {
		name, err := p.readString()
		if err != nil {
			return err
		}
		if !schema.ValidSecretName(name) {
			return p.errorHere("a name does not match %s", schema.SecretNamePattern)
		}
		if err := readMember(schema.SecretName(name)); err != nil {
			return err
		}
	}
	if _, err := p.decoder.ReadToken(); err != nil {
		return p.syntaxError(err)
	}
	return nil
}
