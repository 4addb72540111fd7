package broker

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
)

// A payloadError says which rule a push breaks. Its text holds no value, and a
// name only where it was validated.
type payloadError struct{ rule string }

func (e *payloadError) Error() string { return e.rule }

func badPayload(format string, args ...any) error {
	return &payloadError{fmt.Sprintf(format, args...)}
}

// parsePush checks a push-creds request and finds the secrets in it. line lies
// at offset in its arena and has been checked as strict JSON, so only the rules
// of the payload are left.
func parsePush(line []byte, offset int) (*pushParser, error) {
	p := &pushParser{
		line:    line,
		offset:  offset,
		decoder: jsontext.NewDecoder(bytes.NewBuffer(line)),
		secrets: map[schema.SecretName]secret{},
	}
	return p, p.request()
}

// snapshot makes the snapshot, in place, and takes the arena over. What the
// arena holds beside the secrets in the form in which they are sent is wiped,
// or was no secret.
func (p *pushParser) snapshot(arena *secmem.Arena, now time.Time) (*snapshot, error) {
	snap := &snapshot{arena: arena, secrets: p.secrets, loadedAt: now}
	end, err := quoteBundles(snap, p.offset+len(p.line))
	if err != nil {
		return nil, err
	}
	snap.arena.Trim(end)
	return snap, nil
}

type pushParser struct {
	line    []byte
	offset  int // of line in the arena
	decoder *jsontext.Decoder
	secrets map[schema.SecretName]secret // positions in the arena
}

// request reads the top level: the two maps, and whatever else is ignored.
func (p *pushParser) request() error {
	found := false
	err := p.object(func(field []byte) error {
		switch string(field) {
		case `"secrets"`:
			found = true
			return p.entries("secrets", p.value)
		case `"secrets_b64"`:
			found = true
			return p.entries("secrets_b64", p.binary)
		}
		return p.decoder.SkipValue()
	})
	if err == nil && !found {
		err = badPayload("there is neither secrets nor secrets_b64")
	}
	return err
}

// object reads an object, calling member with each name, in quotes, when the
// decoder stands before its value. A name written with escapes is unescaped.
func (p *pushParser) object(member func(name []byte) error) error {
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

// errSyntax cannot happen, because the line was checked before; it is an error
// all the same rather than a panic over a push.
var errSyntax = badPayload("the request cannot be read")

// entries reads one of the maps of secrets.
func (p *pushParser) entries(field string, read func(schema.SecretName) (secret, error)) error {
	if p.decoder.PeekKind() != jsontext.KindBeginObject {
		return badPayload("%s is not an object", field)
	}
	return p.object(func(quoted []byte) error {
		raw := quoted[1 : len(quoted)-1]
		if !schema.ValidSecretName(raw) {
			return badPayload("a name in %s does not match %s", field, schema.SecretNamePattern)
		}
		name := schema.SecretName(raw)
		if _, twice := p.secrets[name]; twice {
			return badPayload("%s is both in secrets and in secrets_b64", name)
		}
		s, err := read(name)
		if err == nil {
			p.secrets[name] = s
		}
		return err
	})
}

// value reads a text, which is already in the form that is sent, or a bundle.
func (p *pushParser) value(name schema.SecretName) (secret, error) {
	switch p.decoder.PeekKind() {
	case jsontext.KindString:
		start, end, err := p.span()
		return secret{kind: textSecret, start: start, end: end}, err
	case jsontext.KindBeginObject:
		// The offset is that of the colon, or of white space around it.
		start := int(p.decoder.InputOffset())
		start += bytes.IndexByte(p.line[start:], '{')
		err := p.object(func(field []byte) error {
			if !schema.ValidSecretName(field[1 : len(field)-1]) {
				return badPayload("a field of %s does not match %s", name, schema.SecretNamePattern)
			}
			if p.decoder.PeekKind() != jsontext.KindString {
				return badPayload("a field of %s is not a string", name)
			}
			return p.decoder.SkipValue()
		})
		return secret{kind: bundleSecret, start: p.offset + start, end: p.offset + int(p.decoder.InputOffset())}, err
	}
	return secret{}, badPayload("%s is neither a string nor an object of strings", name)
}

// binary reads base64. Strict base64 has one spelling, so the text that came is
// the text that is sent, once the escapes that some JSON writers use for / and
// + are gone.
func (p *pushParser) binary(name schema.SecretName) (secret, error) {
	if p.decoder.PeekKind() != jsontext.KindString {
		return secret{}, badPayload("%s in secrets_b64 is not a string", name)
	}
	start, end, err := p.span()
	if err != nil {
		return secret{}, err
	}
	quoted := p.line[start-p.offset : end-p.offset]
	if bytes.IndexByte(quoted, '\\') >= 0 {
		// In place: the plain text is never longer than what was read of it.
		text, err := jsontext.AppendUnquote(quoted[:0], quoted)
		if err != nil {
			return secret{}, errSyntax
		}
		n := copy(quoted[1:], text)
		quoted[0], quoted[n+1] = '"', '"'
		clear(quoted[n+2:])
		end = start + n + 2
		quoted = quoted[:n+2]
	}
	if !validBase64(quoted[1 : len(quoted)-1]) {
		return secret{}, badPayload("%s is not standard base64 with padding (RFC 4648, section 4)", name)
	}
	return secret{kind: binarySecret, start: start, end: end}, nil
}

// span reads a string and returns where it stands in the arena, quotes
// included.
func (p *pushParser) span() (start, end int, err error) {
	value, err := p.decoder.ReadValue()
	if err != nil {
		return 0, 0, errSyntax
	}
	end = p.offset + int(p.decoder.InputOffset())
	return end - len(value), end, nil
}

// validBase64 decodes in pieces, into a scratch that it wipes, to see whether
// text is canonical.
func validBase64(text []byte) bool {
	var scratch [48]byte
	defer clear(scratch[:])
	strict := base64.StdEncoding.Strict()
	for len(text) > 0 {
		piece := text[:min(len(text), 64)]
		text = text[len(piece):]
		n, err := strict.Decode(scratch[:], piece)
		// The decoder skips line ends; and padding belongs to the last piece.
		if err != nil || strict.EncodedLen(n) != len(piece) || (len(text) > 0 && n != len(scratch)) {
			return false
		}
	}
	return true
}

// quoteBundles writes each bundle as it is sent, the JSON string of its compact
// JSON text, behind end, and wipes where it came from. Where the arena has no
// room the snapshot moves to a larger one. It returns the new end.
func quoteBundles(snap *snapshot, end int) (int, error) {
	need := 0
	for _, s := range snap.secrets {
		if s.kind == bundleSecret {
			need += 2 + 2*(s.end-s.start) // quotes, and every byte escaped
		}
	}
	if old := snap.arena; end+need > len(old.Bytes()) {
		larger, err := secmem.New(end + need)
		if err != nil {
			return 0, err
		}
		copy(larger.Bytes(), old.Bytes()[:end])
		snap.arena = larger
		old.Free()
	}
	for name, s := range snap.secrets {
		if s.kind != bundleSecret {
			continue
		}
		source := snap.bytes(s)
		start := end
		end += quoteCompact(snap.arena.Bytes()[start:], source)
		clear(source)
		snap.secrets[name] = secret{kind: bundleSecret, start: start, end: end}
	}
	return end, nil
}

// quoteCompact writes to dst the JSON string that holds the compact form of the
// JSON text source, and returns its length. Valid JSON text has no control
// characters but white space, so quotes and backslashes are all there is to
// escape.
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
