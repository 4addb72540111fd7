package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// Value is a secret in a push. It is a text or a bundle. Only clients use this type. The
// broker parses a push without this type, so that no secret is copied to the Go heap.
type Value struct {
	// Text is the value of the secret. It is used only if Fields is nil.
	Text string
	// Fields contains the fields of a bundle. It is nil if the secret is a text.
	Fields map[SecretName]string
}

// MarshalJSON encodes a text as a string and a bundle as an object of strings. It returns an
// error if the text or a field of the bundle is not valid UTF-8. Without this check,
// encoding/json would replace the invalid bytes.
func (v Value) MarshalJSON() ([]byte, error) {
	var plain any = v.Text
	ok := utf8.ValidString(v.Text)
	if v.Fields != nil {
		plain, ok = v.Fields, true
		for _, text := range v.Fields {
			ok = ok && utf8.ValidString(text)
		}
	}
	if !ok {
		return nil, errors.New("cannot encode a secret as text: invalid UTF-8: push the secret in secrets_b64")
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // an escaped < has six bytes instead of one, and a push is limited to MaxPush bytes
	err := enc.Encode(plain)
	return b.Bytes(), err
}
