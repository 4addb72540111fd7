package keyring

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// A PayloadError reports the rule that a push request violates. Its text never contains a
// value. The text contains a name only if the name is valid.
type PayloadError struct{ rule string }

func (e *PayloadError) Error() string { return e.rule }

func payloadError(format string, args ...any) error {
	return &PayloadError{fmt.Sprintf(format, args...)}
}

// errSyntax should never be returned, because wire.Check has already checked the syntax
// of the line. If a bug makes the parser fail, this error is better than a panic during a
// push.
var errSyntax = payloadError("cannot parse the request")

// A Request is a valid push request. Its values are parts of the request line, so the line must
// not be changed or wiped before Push has returned.
type Request struct {
	// Exclusive is the field exclusive of the request. Only ParseUsual sets it. Parse does not.
	Exclusive bool

	secrets []wire.PushedSecret
	names   *nameList // in the order of secrets
}

// parseUsual parses a push request in its usual form, and returns false for any other line.
// previous contains the names of an earlier push, or is nil. The result uses previous if the
// request has the same names in the same order.
func parseUsual(line []byte, previous *nameList) (*Request, bool) {
	expected := 0
	if previous != nil {
		expected = len(previous.names)
	}
	secrets, exclusive, ok := wire.ParsePush(line, expected)
	if !ok {
		return nil, false
	}
	for _, secret := range secrets {
		if secret.Binary && !validBase64(secret.Value[1:len(secret.Value)-1]) {
			return nil, false
		}
	}
	names := previous
	if !previous.equals(secrets) {
		if names, ok = newNameList(secrets); !ok {
			return nil, false
		}
	}
	return &Request{exclusive, secrets, names}, true
}

// Parse parses a push request. It can change line, because it removes escapes from base64 text.
// The error is a *wire.Error if wire.Check refuses the line, for example because it is not valid
// JSON. The error is a *PayloadError if the line violates a rule of push requests.
func Parse(line []byte) (*Request, error) {
	if err := wire.Check(line, &schema.PushRequest{}, schema.MaxDepth); err != nil {
		return nil, err
	}
	p := &pushParser{
		line:    line,
		decoder: jsontext.NewDecoder(bytes.NewBuffer(line)),
		request: Request{names: &nameList{index: map[schema.SecretName]int{}}},
	}
	if err := p.parseRequest(); err != nil {
		return nil, err
	}
	return &p.request, nil
}

// newSnapshot creates a snapshot that contains a response line for each secret. It copies the
// values to other memory than the request line, because a response line is longer than the value
// in the request. The returned snapshot has one reference. newSnapshot fails only if there is not
// enough memory.
func (r *Request) newSnapshot(spare *spareMemory) (*Snapshot, error) {
	size := 0
	for _, secret := range r.secrets {
		size += maxLineLength(secret)
	}
	arena, err := spare.take(size)
	if err != nil {
		return nil, err
	}
	memory, end := arena.Bytes(), 0
	locations := make([]location, len(r.secrets))
	for i, secret := range r.secrets {
		start := end
		end += writeLine(memory[start:], secret)
		locations[i] = location{start: start, end: end}
	}
	return newSnapshot(arena, end, r.names, locations, spare), nil
}

// A pushParser finds the secrets in a line that wire.Check has accepted. It checks the
// additional rules of push requests.
type pushParser struct {
	line    []byte
	decoder *jsontext.Decoder
	request Request
}

// parseRequest reads the fields secrets and secrets_b64 of the request, and ignores all other
// fields. It returns an error if both fields are missing.
func (p *pushParser) parseRequest() error {
	found := false
	err := p.parseObject(func(field []byte) error {
		switch string(field) {
		case `"secrets"`:
			found = true
			return p.parseSecrets("secrets", p.parseValue)
		case `"secrets_b64"`:
			found = true
			return p.parseSecrets("secrets_b64", p.parseBinary)
		}
		return p.decoder.SkipValue()
	})
	if err == nil && !found {
		err = payloadError("secrets and secrets_b64 are both missing")
	}
	return err
}

// parseObject reads an object. For each member of the object, it reads the name and then
// calls member, which must read the value. The argument name of member is in quotes, and contains
// no unnecessary escapes.
func (p *pushParser) parseObject(member func(name []byte) error) error {
	if _, err := p.decoder.ReadToken(); err != nil {
		return errSyntax
	}
	for p.decoder.PeekKind() != jsontext.KindEndObject {
		name, err := p.decoder.ReadValue()
		if err != nil {
			return errSyntax
		}
		if bytes.IndexByte(name, '\\') >= 0 {
			plain, err := jsontext.AppendUnquote(nil, name)
			if err != nil {
				return errSyntax
			}
			name, _ = jsontext.AppendQuote(nil, plain)
		}
		if err := member(name); err != nil {
			return err
		}
	}
	_, err := p.decoder.ReadToken()
	if err != nil {
		return errSyntax
	}
	return nil
}

// parseSecrets reads the field secrets or the field secrets_b64. For each secret in the field, it
// calls read, which must read the value.
func (p *pushParser) parseSecrets(field string, read func(schema.SecretName) (value []byte, err error)) error {
	if p.decoder.PeekKind() != jsontext.KindBeginObject {
		return payloadError("%s must be an object", field)
	}
	return p.parseObject(func(quoted []byte) error {
		raw := quoted[1 : len(quoted)-1]
		if !schema.ValidSecretName(raw) {
			return payloadError("each name in %s must match %s", field, schema.SecretNamePattern)
		}
		name := schema.SecretName(raw)
		if _, duplicate := p.request.names.index[name]; duplicate {
			return payloadError("%s is in both secrets and secrets_b64", name)
		}
		value, err := read(name)
		p.request.names.add(name)
		p.request.secrets = append(p.request.secrets, wire.PushedSecret{Name: []byte(name), Value: value, Binary: field == "secrets_b64"})
		return err
	})
}

// parseValue reads the value of a secret in the field secrets, which is a text or a bundle.
// parseValue does not remove the escapes of a text, because the broker sends a text to clients
// in the same form in which the text was pushed.
func (p *pushParser) parseValue(name schema.SecretName) ([]byte, error) {
	switch p.decoder.PeekKind() {
	case jsontext.KindString:
		return p.parseString()
	case jsontext.KindBeginObject:
		// The decoder's offset is before the colon between the name and the value, or
		// before white space around this colon. Therefore search for the opening brace of
		// the bundle.
		start := p.decoder.InputOffset()
		start += int64(bytes.IndexByte(p.line[start:], '{'))
		err := p.parseObject(func(field []byte) error {
			if !schema.ValidSecretName(field[1 : len(field)-1]) {
				return payloadError("each field name of %s must match %s", name, schema.SecretNamePattern)
			}
			if p.decoder.PeekKind() != jsontext.KindString {
				return payloadError("each field of %s must be a string", name)
			}
			return p.decoder.SkipValue()
		})
		return p.line[start:p.decoder.InputOffset()], err
	}
	return nil, payloadError("%s must be a string or an object of strings", name)
}

// parseBinary reads the base64 text of a binary secret, and returns it with quotes. Some JSON
// writers escape the characters / and +, so parseBinary removes JSON escapes. It changes nothing
// else, because strict base64 has only one spelling of each value.
func (p *pushParser) parseBinary(name schema.SecretName) ([]byte, error) {
	if p.decoder.PeekKind() != jsontext.KindString {
		return nil, payloadError("%s in secrets_b64 must be a string", name)
	}
	quoted, err := p.parseString()
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(quoted, '\\') >= 0 {
		// Remove the escapes in place. The text without escapes is never longer than the
		// text with escapes.
		plain, err := jsontext.AppendUnquote(quoted[:0], quoted)
		if err != nil {
			return nil, errSyntax
		}
		n := copy(quoted[1:], plain)
		quoted[0], quoted[n+1] = '"', '"'
		quoted = quoted[:n+2]
	}
	if !validBase64(quoted[1 : len(quoted)-1]) {
		return nil, payloadError("%s must be standard base64 with padding (RFC 4648, section 4)", name)
	}
	return quoted, nil
}

// parseString reads a string and returns it with its quotes. The result is a part of the
// line.
func (p *pushParser) parseString() ([]byte, error) {
	value, err := p.decoder.ReadValue()
	if err != nil {
		return nil, errSyntax
	}
	end := int(p.decoder.InputOffset())
	return p.line[end-len(value) : end], nil
}

// validBase64 reports whether text is standard base64 with padding, in which all bits that belong
// to no byte are 0. An empty text is valid.
func validBase64(text []byte) bool {
	if len(text)%4 != 0 {
		return false
	}
	if len(text) == 0 {
		return true
	}
	var all byte
	for ; len(text) > 4; text = text[4:] {
		all |= base64Digits[text[0]] | base64Digits[text[1]] | base64Digits[text[2]] | base64Digits[text[3]]
	}
	// If there is padding, the last digit before it has 2 or 4 bits that belong to no byte. These
	// bits must be 0. Otherwise several texts would mean the same value.
	unused := byte(0)
	switch {
	case text[2] == '=' && text[3] == '=':
		text, unused = text[:2], 0b1111
	case text[3] == '=':
		text, unused = text[:3], 0b11
	}
	for _, c := range text {
		all |= base64Digits[c]
	}
	return all&notBase64 == 0 && base64Digits[text[len(text)-1]]&unused == 0
}

// notBase64 is the value in base64Digits of each byte that is not a digit of base64.
const notBase64 = 1 << 6

// base64Digits maps each byte to its value as a digit of base64, or to notBase64.
var base64Digits = func() (digits [256]byte) {
	for c := range digits {
		digits[c] = notBase64
	}
	for value, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		digits[c] = byte(value)
	}
	return digits
}()
