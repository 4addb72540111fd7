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

// A PayloadError is a rule that a push request breaks. Its text contains no value,
// and a name only if the name is valid.
type PayloadError struct{ rule string }

func (e *PayloadError) Error() string { return e.rule }

func payloadError(format string, args ...any) error {
	return &PayloadError{fmt.Sprintf(format, args...)}
}

// errSyntax cannot happen, because the line is checked before. If it did, an error
// would be better than a panic during a push.
var errSyntax = payloadError("cannot parse the request")

// parsePush makes a snapshot of a push request. line lies in the arena, which
// parsePush takes over: after an error it is wiped. The secrets stay in place. The
// snapshot has one reference.
func parsePush(arena *secmem.Arena, line []byte) (*Snapshot, error) {
	if err := wire.Check(line, &schema.PushRequest{}, schema.MaxDepth); err != nil {
		arena.Free()
		return nil, err
	}
	p := &pushParser{
		line: line,
		// The line is a slice of the arena that extends to the end of the arena.
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
	// The rest of the arena is unused, or contains parts of the request that are not
	// secret.
	snapshot.arena.TrimTo(end)
	return snapshot, nil
}

// A pushParser finds the secrets in a line that has been checked as strict JSON,
// so that only the rules of push requests are left.
type pushParser struct {
	line    []byte
	offset  int // of the line in the arena
	decoder *jsontext.Decoder
	secrets map[schema.SecretName]location
}

// parseRequest reads the top level: the two maps of secrets. It ignores other
// fields.
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

// parseObject reads an object. It calls member with each name, in quotes and
// without escapes, when the decoder is in front of the value.
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

// parseSecrets reads one of the maps of secrets.
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

// parseValue reads a text, which already has the form in which it is sent, or a
// bundle.
func (p *pushParser) parseValue(name schema.SecretName) (location, error) {
	switch p.decoder.PeekKind() {
	case jsontext.KindString:
		start, end, err := p.parseString()
		return location{kind: Text, start: start, end: end}, err
	case jsontext.KindBeginObject:
		// The offset is that of the colon, or of white space around it.
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

// parseBinary reads base64. Strict base64 has only one spelling, so the received
// text is sent as it is, except for the escapes that some JSON writers use for
// / and +.
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
		// In place: the text without escapes is never longer.
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

// parseString reads a string and returns its place in the arena, quotes included.
func (p *pushParser) parseString() (start, end int, err error) {
	value, err := p.decoder.ReadValue()
	if err != nil {
		return 0, 0, errSyntax
	}
	end = p.offset + int(p.decoder.InputOffset())
	return end - len(value), end, nil
}

// validBase64 reports whether text is canonical base64. It decodes in pieces, into
// a buffer that it wipes.
func validBase64(text []byte) bool {
	var buffer [48]byte
	defer clear(buffer[:])
	strict := base64.StdEncoding.Strict()
	for len(text) > 0 {
		piece := text[:min(len(text), 64)]
		text = text[len(piece):]
		n, err := strict.Decode(buffer[:], piece)
		// The decoder skips line ends, and padding may only be in the last piece.
		if err != nil || strict.EncodedLen(n) != len(piece) || (len(text) > 0 && n != len(buffer)) {
			return false
		}
	}
	return true
}

// quoteBundles writes each bundle in the form in which it is sent, a JSON string
// that contains compact JSON, after end, and wipes the original. If the arena is
// too small, the snapshot moves to a larger one. It returns the new end.
func quoteBundles(snapshot *Snapshot, end int) (int, error) {
	needed := 0
	for _, l := range snapshot.secrets {
		if l.kind == Bundle {
			needed += 2 + 2*(l.end-l.start) // quotes, and every byte escaped
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

// quoteCompact writes a JSON string to dst that contains the compact form of the
// JSON text source, and returns its length. Valid JSON text contains no control
// characters except white space, so only quotes and backslashes need escapes.
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
