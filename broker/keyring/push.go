package keyring

import (
	"bytes"
	"encoding/base64"
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

// parsePush creates a snapshot from a push request. It can change line, but keeps no
// reference to line. The returned snapshot has one reference.
func parsePush(line []byte, spare *spareMemory) (*Snapshot, error) {
	if err := wire.Check(line, &schema.PushRequest{}, schema.MaxDepth); err != nil {
		return nil, err
	}
	p := &pushParser{
		line:    line,
		decoder: jsontext.NewDecoder(bytes.NewBuffer(line)),
		index:   map[schema.SecretName]int{},
	}
	if err := p.parseRequest(); err != nil {
		return nil, err
	}
	return writeSnapshot(p.index, p.values, spare)
}

// writeSnapshot creates a snapshot with the response lines of the values. The snapshot is
// in other memory than the request, because the lines are longer than the request. index
// contains the index of each secret's value in values.
func writeSnapshot(index map[schema.SecretName]int, values []parsedValue, spare *spareMemory) (*Snapshot, error) {
	size := 0
	for _, value := range values {
		size += value.maxLineLength()
	}
	arena, err := spare.take(size)
	if err != nil {
		return nil, err
	}
	memory, end := arena.Bytes(), 0
	locations := make([]location, len(values))
	for i, value := range values {
		start := end
		end += value.writeLine(memory[start:])
		locations[i] = location{start: start, end: end}
	}
	return newSnapshot(arena, end, index, locations, spare), nil
}

// A pushParser finds the secrets in a line that is already known to be strict JSON. It
// checks the additional rules of push requests.
type pushParser struct {
	line    []byte
	decoder *jsontext.Decoder
	index   map[schema.SecretName]int // the index of each secret in values
	values  []parsedValue
}

// parseRequest reads the two maps of secrets at the top level of the request, and ignores
// other fields.
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
// calls member, which must read the value. The name is in quotes and contains no escapes.
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

// parseSecrets reads one of the two maps of secrets. For each secret, it calls read,
// which must read the value.
func (p *pushParser) parseSecrets(field string, read func(schema.SecretName) (parsedValue, error)) error {
	if p.decoder.PeekKind() != jsontext.KindBeginObject {
		return payloadError("%s must be an object", field)
	}
	return p.parseObject(func(quoted []byte) error {
		raw := quoted[1 : len(quoted)-1]
		if !schema.ValidSecretName(raw) {
			return payloadError("each name in %s must match %s", field, schema.SecretNamePattern)
		}
		name := schema.SecretName(raw)
		if _, duplicate := p.index[name]; duplicate {
			return payloadError("%s is in both secrets and secrets_b64", name)
		}
		found, err := read(name)
		p.index[name] = len(p.values)
		p.values = append(p.values, found)
		return err
	})
}

// parseValue reads the value of a text or of a bundle. A text is not converted, because
// it is sent to clients in the same form in which it was pushed.
func (p *pushParser) parseValue(name schema.SecretName) (parsedValue, error) {
	switch p.decoder.PeekKind() {
	case jsontext.KindString:
		quoted, err := p.parseString()
		return parsedValue{textKind, quoted}, err
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
		return parsedValue{bundleKind, p.line[start:p.decoder.InputOffset()]}, err
	}
	return parsedValue{}, payloadError("%s must be a string or an object of strings", name)
}

// parseBinary reads the base64 text of a binary secret. The text is sent to clients as it
// was pushed, because strict base64 has only one spelling of each value. The only
// exception is that parseBinary removes the escapes that some JSON writers use for / and
// +.
func (p *pushParser) parseBinary(name schema.SecretName) (parsedValue, error) {
	if p.decoder.PeekKind() != jsontext.KindString {
		return parsedValue{}, payloadError("%s in secrets_b64 must be a string", name)
	}
	quoted, err := p.parseString()
	if err != nil {
		return parsedValue{}, err
	}
	if bytes.IndexByte(quoted, '\\') >= 0 {
		// Remove the escapes in place. The text without escapes is never longer than the
		// text with escapes.
		plain, err := jsontext.AppendUnquote(quoted[:0], quoted)
		if err != nil {
			return parsedValue{}, errSyntax
		}
		n := copy(quoted[1:], plain)
		quoted[0], quoted[n+1] = '"', '"'
		quoted = quoted[:n+2]
	}
	if !validBase64(quoted[1 : len(quoted)-1]) {
		return parsedValue{}, payloadError("%s must be standard base64 with padding (RFC 4648, section 4)", name)
	}
	return parsedValue{binaryKind, quoted}, nil
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

// validBase64 reports whether text is canonical base64. It decodes text in small pieces
// into a buffer, and wipes the buffer at the end.
func validBase64(text []byte) bool {
	var buffer [48]byte
	defer clear(buffer[:])
	strict := base64.StdEncoding.Strict()
	for len(text) > 0 {
		piece := text[:min(len(text), 64)]
		text = text[len(piece):]
		n, err := strict.Decode(buffer[:], piece)
		// The decoder skips line ends, so compare the lengths to find them. Only the last
		// piece may have padding.
		if err != nil || strict.EncodedLen(n) != len(piece) || (len(text) > 0 && n != len(buffer)) {
			return false
		}
	}
	return true
}
