package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// Value is a secret as it is pushed: a text, or a bundle of named fields. The
// client builds one; the broker parses requests in place and never makes one.
type Value struct {
	// Text is the secret where Fields is nil.
	Text string
	// Fields makes the secret a bundle.
	Fields map[SecretName]string
}

// MarshalJSON writes a string, or for a bundle an object of strings. Bytes that
// are not UTF-8 are an error, because encoding/json would repair them silently.
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
		return nil, errors.New("a text is not valid UTF-8: push it in secrets_b64")
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // six bytes for every < would count against MaxPush
	err := enc.Encode(plain)
	return b.Bytes(), err
}
