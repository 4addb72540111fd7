package keyring

import (
	"bytes"
	"encoding/base64"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/keyhatch/keyhatch/broker/secmem"
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

// parsePush creates a snapshot from a push request. The bytes of line are a part of
// arena. parsePush takes over the ownership of arena, and wipes arena after an error.
// Secrets that are not bundles stay at their place in the arena. The returned snapshot
// has one reference.
func parsePush(arena *secmem.Arena, line []byte) (*Snapshot, error) {
	if err := wire.Check(line, &schema.PushRequest{}, schema.MaxDepth); err != nil {
		arena.Free()
		return nil, err
	}
	p := &pushParser{
		line: line,
		// The capacities of line and of the arena end at the same byte, because line is a
		// slice of the arena. Therefore their difference is the offset of line.
		offset:  cap(arena.Bytes()) - cap(line),
		decoder: jsontext.NewDecoder(bytes.NewBuffer(line)),
		secrets: map[schema.SecretName]location{},
	}
	if err := p.parseRequest(); err != nil {
		arena.Free()
		return nil, err
	}
	snapshot := newSnapshot(arena, p.secrets)
	end, err := quoteBundles(snapshot, p.offset+len(line))
	if err != nil {
		snapshot.Release()
		return nil, err
	}
	// Free the memory after end, because it is unused. The memory before end contains the
	// secrets, and parts of the request that are not secret.
	snapshot.arena.TrimTo(end)
	return snapshot, nil
}

// A pushParser finds the secrets in a line that is already known to be strict JSON. It
// checks the additional rules of push requests.
type pushParser struct {
	line    []byte
	offset  int // the offset of line in the arena
	decoder *jsontext.Decoder
	secrets map[schema.SecretName]location
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
func (p *pushParser) parseSecrets(field string, read func(schema.SecretName) (location, error)) error {
	if p.decoder.PeekKind() != jsontext.KindBeginObject {
		return payloadError("%s must be an object", field)
	}
	return p.parseObject(func(quoted []byte) error {
		raw := quoted[1 : len(quoted)-1]
		if !schema.ValidSecretName(raw) {
			return payloadError("each name in %s must match %s", field, schema.SecretNamePattern)
		}
		name := schema.SecretName(raw)
		if _, duplicate := p.secrets[name]; duplicate {
			return payloadError("%s is in both secrets and secrets_b64", name)
		}
		found, err := read(name)
		if err == nil {
			p.secrets[name] = found
		}
		return err
	})
}

// parseValue reads the value of a text or of a bundle. A text is not converted, because
// it is sent to clients in the same form in which it was pushed.
func (p *pushParser) parseValue(name schema.SecretName) (location, error) {
	switch p.decoder.PeekKind() {
	case jsontext.KindString:
		start, end, err := p.parseString()
		return location{kind: Text, start: start, end: end}, err
	case jsontext.KindBeginObject:
		// The decoder's offset is before the colon between the name and the value, or
		// before white space around this colon. Therefore search for the opening brace of
		// the bundle.
		start := int(p.decoder.InputOffset())
		start += bytes.IndexByte(p.line[start:], '{')
		err := p.parseObject(func(field []byte) error {
			if !schema.ValidSecretName(field[1 : len(field)-1]) {
				return payloadError("each field name of %s must match %s", name, schema.SecretNamePattern)
			}
			if p.decoder.PeekKind() != jsontext.KindString {
				return payloadError("each field of %s must be a string", name)
			}
			return p.decoder.SkipValue()
		})
		return location{kind: Bundle, start: p.offset + start, end: p.offset + int(p.decoder.InputOffset())}, err
	}
	return location{}, payloadError("%s must be a string or an object of strings", name)
}

// parseBinary reads the base64 text of a binary secret. The text is sent to clients as it
// was pushed, because strict base64 has only one spelling of each value. The only
// exception is that parseBinary removes the escapes that some JSON writers use for / and
// +.
func (p *pushParser) parseBinary(name schema.SecretName) (location, error) {
	if p.decoder.PeekKind() != jsontext.KindString {
		return location{}, payloadError("%s in secrets_b64 must be a string", name)
	}
	start, end, err := p.parseString()
	if err != nil {
		return location{}, err
	}
	quoted := p.line[start-p.offset : end-p.offset]
	if bytes.IndexByte(quoted, '\\') >= 0 {
		// Remove the escapes in place. The text without escapes is never longer than the
		// text with escapes.
		text, err := jsontext.AppendUnquote(quoted[:0], quoted)
		if err != nil {
			return location{}, errSyntax
		}
		n := copy(quoted[1:], text)
		quoted[0], quoted[n+1] = '"', '"'
		clear(quoted[n+2:])
		end = start + n + 2
		quoted = quoted[:n+2]
	}
	if !validBase64(quoted[1 : len(quoted)-1]) {
		return location{}, payloadError("%s must be standard base64 with padding (RFC 4648, section 4)", name)
	}
	return location{kind: Binary, start: start, end: end}, nil
}

// parseString reads a string and returns its position in the arena. The position includes
// the quotes.
func (p *pushParser) parseString() (start, end int, err error) {
	value, err := p.decoder.ReadValue()
	if err != nil {
		return 0, 0, errSyntax
	}
	end = p.offset + int(p.decoder.InputOffset())
	return end - len(value), end, nil
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

// quoteBundles converts each bundle to the form in which it is sent to clients, which is
// a JSON string that contains compact JSON. It writes the converted bundles after end,
// and wipes the original bundles. If the arena is too small, quoteBundles moves the
// snapshot to a larger arena. It returns the new end of the used memory.
func quoteBundles(snapshot *Snapshot, end int) (int, error) {
	needed := 0
	for _, l := range snapshot.secrets {
		if l.kind == Bundle {
			needed += 2 + 2*(l.end-l.start) // the maximum, with two quotes and an escape for every byte
		}
	}
	if old := snapshot.arena; end+needed > len(old.Bytes()) {
		larger, err := secmem.New(end + needed)
		if err != nil {
			return 0, err
		}
		copy(larger.Bytes(), old.Bytes()[:end])
		snapshot.arena = larger
		old.Free()
	}
	for name, l := range snapshot.secrets {
		if l.kind != Bundle {
			continue
		}
		source := snapshot.bytesAt(l)
		start := end
		end += quoteCompact(snapshot.arena.Bytes()[start:], source)
		clear(source)
		snapshot.secrets[name] = location{kind: Bundle, start: start, end: end}
	}
	return end, nil
}

// quoteCompact writes a JSON string to dst and returns the length of this string. The
// string contains the compact form of the JSON text source. Valid JSON text contains no
// control characters except white space, so only quotes and backslashes need escapes.
func quoteCompact(dst, source []byte) int {
	n := 0
	put := func(c byte) { dst[n] = c; n++ }
	put('"')
	inString, escaped := false, false
	for _, c := range source {
		switch {
		case !inString && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			continue
		case escaped:
			escaped = false
		case c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		}
		if c == '"' || c == '\\' {
			put('\\')
		}
		put(c)
	}
	put('"')
	return n
}
