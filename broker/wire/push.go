package wire

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/schema"
)

// maxUsualFields is the largest number of fields of a bundle in the usual form. If a bundle has
// more fields, ParsePush returns false, and Decode must decode the line. The number is small,
// because ParsePush compares each field name with all earlier field names of the bundle.
const maxUsualFields = 32

// A PushedSecret is a secret in the line of a push request.
type PushedSecret struct {
	Name   []byte // a valid name
	Value  []byte // the JSON value: a string, or an object of strings with valid names
	Binary bool   // true if the secret is in secrets_b64, false if it is in secrets
}

// ParsePush parses a push request in its usual form. It makes one pass over line, and does
// not change line. The returned names and values are parts of line.
//
// For any other line, ok is false, for example if line contains an unknown field or an escape in a
// name. The calling function must then call Decode, which decodes the line or reports the error. If
// ok is true, Decode would also accept the line, unless two secrets have the same name or a binary
// value is not valid base64. The calling function must check these two rules itself.
//
// The argument expected is the number of secrets for which ParsePush allocates memory at first.
func ParsePush(line []byte, expected int) (secrets []PushedSecret, exclusive, ok bool) {
	s := scanner{line}
	var op []byte
	var hasText, hasBinary, hasExclusive bool
	for mark := byte('{'); s.skip(mark); mark = ',' {
		field, ok := s.text()
		if !ok || !s.skip(':') {
			return nil, false, false
		}
		switch {
		case string(field) == "op" && op == nil:
			op, ok = s.text()
			ok = ok && string(op) == string(schema.OpPush)
		case string(field) == "secrets" && !hasText:
			hasText = true
			secrets, ok = s.secrets(secrets, expected, false)
		case string(field) == "secrets_b64" && !hasBinary:
			hasBinary = true
			secrets, ok = s.secrets(secrets, expected, true)
		case string(field) == "exclusive" && !hasExclusive:
			hasExclusive = true
			exclusive, ok = s.boolean()
		default:
			return nil, false, false
		}
		if !ok {
			return nil, false, false
		}
	}
	if !s.skip('}') || !s.atEnd() || op == nil || !hasText && !hasBinary {
		return nil, false, false
	}
	return secrets, exclusive, true
}

// secrets reads an object of secrets and appends the secrets to list.
func (s *scanner) secrets(list []PushedSecret, expected int, areBinary bool) (_ []PushedSecret, ok bool) {
	if !s.skip('{') {
		return nil, false
	}
	list = slices.Grow(list, max(0, expected-len(list)))
	if s.skip('}') {
		return list, true
	}
	for {
		name, ok := s.secretName()
		if !ok || s.atEnd() {
			return nil, false
		}
		start := s.rest
		if s.rest[0] == '{' && !areBinary {
			ok = s.skipBundle()
		} else {
			ok = s.skipString()
		}
		if !ok {
			return nil, false
		}
		list = append(list, PushedSecret{name, start[:len(start)-len(s.rest)], areBinary})
		if !s.skip(',') {
			return list, s.skip('}')
		}
	}
}

// secretName reads a valid name and the colon after it.
func (s *scanner) secretName() (name []byte, ok bool) {
	name, ok = s.text()
	return name, ok && schema.ValidSecretName(name) && s.skip(':')
}

// skipBundle skips an object of strings with valid names.
func (s *scanner) skipBundle() bool {
	fields := make([][]byte, 0, 4)
	if s.skip('{'); s.skip('}') {
		return true
	}
	for {
		field, ok := s.secretName()
		isDuplicate := slices.ContainsFunc(fields, func(earlier []byte) bool { return bytes.Equal(earlier, field) })
		if !ok || isDuplicate || len(fields) == maxUsualFields || !s.skipString() {
			return false
		}
		fields = append(fields, field)
		if !s.skip(',') {
			return s.skip('}')
		}
	}
}

// boolean reads true or false.
func (s *scanner) boolean() (value, ok bool) {
	if s.atEnd() {
		return false, false
	}
	for _, word := range []string{"true", "false"} {
		if rest, ok := bytes.CutPrefix(s.rest, []byte(word)); ok {
			s.rest = rest
			return word == "true", true
		}
	}
	return false, false
}

// skipString skips any valid string.
func (s *scanner) skipString() bool {
	if !s.skip('"') {
		return false
	}
	for {
		n := PlainLength(s.rest)
		s.rest = s.rest[n:]
		switch {
		case len(s.rest) == 0 || s.rest[0] < ' ':
			return false
		case s.rest[0] == '"':
			s.rest = s.rest[1:]
			return true
		case s.rest[0] == '\\':
			n = escapeLength(s.rest)
		default:
			var r rune
			if r, n = utf8.DecodeRune(s.rest); r == utf8.RuneError && n == 1 {
				return false
			}
		}
		if n == 0 {
			return false
		}
		s.rest = s.rest[n:]
	}
}

// PlainLength returns the number of bytes at the beginning of text that may occur unchanged in a
// JSON string and are ASCII. It stops at the first quote, backslash, or byte below 0x20 or above
// 0x7f. It checks several bytes at a time, because a push can contain 1 MiB.
func PlainLength(text []byte) (n int) {
	for ; n+16 <= len(text); n += 16 {
		if findSpecial(text[n:])|findSpecial(text[n+8:]) != 0 {
			break
		}
	}
	for ; n+8 <= len(text); n += 8 {
		if special := findSpecial(text[n:]); special != 0 {
			return n + bits.TrailingZeros64(special)/8
		}
	}
	for ; n < len(text); n++ {
		if c := text[n]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			break
		}
	}
	return n
}

// findSpecial checks the first 8 bytes of text. If PlainLength counts all of them, the result is
// 0. Otherwise, the lowest set bit of the result is the high bit of the first byte that
// PlainLength does not count. Only the lowest set bit is reliable: a subtraction sets the high
// bit of a byte that is too small, but its borrow can also set the high bits of later bytes.
func findSpecial(text []byte) uint64 {
	const (
		ones  = 0x0101010101010101
		highs = 0x80 * ones
	)
	w := binary.LittleEndian.Uint64(text)
	return (w | (w - ' '*ones) | ((w ^ '"'*ones) - ones) | ((w ^ '\\'*ones) - ones)) & highs
}

// escapeLength returns the length of the escape at the beginning of text, or 0 if this escape is
// not valid. The two escapes of a surrogate pair count as one escape. A lone surrogate is not
// valid.
func escapeLength(text []byte) int {
	if len(text) < 2 {
		return 0
	}
	switch text[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		r, ok := hexadecimal(text)
		switch {
		case !ok || 0xdc00 <= r && r < 0xe000:
			return 0
		case r < 0xd800 || 0xe000 <= r:
			return 6
		}
		if r, ok := hexadecimal(text[6:]); ok && 0xdc00 <= r && r < 0xe000 {
			return 12
		}
	}
	return 0
}

// hexadecimal returns the number in an escape of the form \u1234 at the beginning of text.
func hexadecimal(text []byte) (r rune, ok bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	for _, c := range text[2:6] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|' ' && c|' ' <= 'f':
			r = r<<4 | rune(c|' '-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}
