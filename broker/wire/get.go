package wire

import (
	"bytes"

	"github.com/keyhatch/keyhatch/schema"
)

// ParseGet parses a get request in its usual form. It makes one pass over line, and allocates no
// memory. The returned name is a valid name and a part of line. If the request has no wait_ms,
// waitMS is 0.
//
// For any other line, ok is false, for example if line contains an unknown field or an escape. The
// calling function must then call Decode, which decodes the line or reports the error. If ok is
// true, Decode would return the same values.
func ParseGet(line []byte) (name []byte, waitMS int64, ok bool) {
	s := scanner{line}
	var op []byte
	waits := false
	for mark := byte('{'); s.skip(mark); mark = ',' {
		field, ok := s.text()
		if !ok || !s.skip(':') {
			return nil, 0, false
		}
		switch {
		case string(field) == "op" && op == nil:
			op, ok = s.text()
		case string(field) == "name" && name == nil:
			name, ok = s.text()
		case string(field) == "wait_ms" && !waits:
			waits = true
			waitMS, ok = s.number()
		default:
			return nil, 0, false
		}
		if !ok {
			return nil, 0, false
		}
	}
	if !s.skip('}') || !s.atEnd() || string(op) != string(schema.OpGet) || !schema.ValidSecretName(name) {
		return nil, 0, false
	}
	return name, waitMS, true
}

// A scanner reads simple JSON tokens. Its methods skip white space before a token. If a method
// that reads a value returns false, do not use the scanner again, because it can be in the middle
// of the value.
type scanner struct{ rest []byte }

// atEnd skips white space, and reports whether the end of the line is reached.
func (s *scanner) atEnd() bool {
	for len(s.rest) > 0 {
		switch s.rest[0] {
		case ' ', '\t', '\r', '\n':
			s.rest = s.rest[1:]
		default:
			return false
		}
	}
	return true
}

// skip reports whether the next token is the punctuation mark c. If so, it also skips c.
func (s *scanner) skip(c byte) bool {
	if s.atEnd() || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// text reads a string without escapes. The result is never nil. text does not check the characters,
// so the calling function must compare the text with a constant or check it with
// schema.ValidSecretName. Both refuse a backslash, so they also refuse a string with escapes, which
// text ends too early if it contains an escaped quote.
func (s *scanner) text() (text []byte, ok bool) {
	if !s.skip('"') {
		return nil, false
	}
	end := bytes.IndexByte(s.rest, '"')
	if end < 0 {
		return nil, false
	}
	text, s.rest = s.rest[:end], s.rest[end+1:]
	return text, true
}

// number reads an integer without a sign. The integer can have at most 18 digits, so that n
// cannot overflow.
func (s *scanner) number() (n int64, ok bool) {
	if s.atEnd() {
		return 0, false
	}
	digits := 0
	for digits < len(s.rest) && '0' <= s.rest[digits] && s.rest[digits] <= '9' {
		if digits == 18 {
			return 0, false
		}
		n = 10*n + int64(s.rest[digits]-'0')
		digits++
	}
	if digits == 0 || s.rest[0] == '0' && digits > 1 {
		return 0, false
	}
	s.rest = s.rest[digits:]
	return n, true
}
