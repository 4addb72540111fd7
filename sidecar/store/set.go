package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// A Set is the complete content of a store. If a store is read without an error, its
// Set is not nil, even if it is empty.
type Set map[schema.SecretName]Value

// A Value is one secret: a text, a binary value, or a bundle of named texts.
type Value struct {
	Bytes  []byte // nil for a bundle
	Binary bool   // Bytes are pushed as base64, even if they are valid UTF-8
	Fields map[schema.SecretName][]byte
}

// Equal reports whether both sets have the same names with the same values.
func (s Set) Equal(other Set) bool {
	return maps.EqualFunc(s, other, Value.equal)
}

func (v Value) equal(other Value) bool {
	return v.Binary == other.Binary && bytes.Equal(v.Bytes, other.Bytes) &&
		(v.Fields == nil) == (other.Fields == nil) && maps.EqualFunc(v.Fields, other.Fields, bytes.Equal)
}

// EncodePush returns the request line, including its newline, that pushes the set to a
// broker. If the line exceeds schema.MaxPush, EncodePush returns an error. The caller
// must wipe the line.
func (s Set) EncodePush() ([]byte, error) {
	request := schema.PushRequest{
		Op:         schema.OpPush,
		Secrets:    map[schema.SecretName]schema.Value{},
		SecretsB64: map[schema.SecretName][]byte{},
	}
	for name, value := range s {
		switch {
		case value.Binary:
			request.SecretsB64[name] = value.Bytes
		case value.Fields != nil:
			fields := map[schema.SecretName]string{}
			for field, text := range value.Fields {
				fields[field] = string(text)
			}
			request.Secrets[name] = schema.Value{Fields: fields}
		default:
			request.Secrets[name] = schema.Value{Text: string(value.Bytes)}
		}
	}
	line, err := wire.Encode(request)
	if err != nil {
		return nil, errors.New("cannot encode the secrets") // err could contain a part of a secret
	}
	if size := len(line) - 1; size > schema.MaxPush {
		clear(line)
		return nil, fmt.Errorf("the encoded secrets have %d bytes, but the maximum size of a push is %d bytes", size, schema.MaxPush)
	}
	return line, nil
}
