package keyring

import "github.com/keyhatch/keyhatch/broker/wire"

// For each secret, a snapshot contains the whole response to a get (schema.GetResponse), so
// that the broker can send the response with one write. The part between lineStart and
// lineEnd is also sent in the response to a get-many.
const (
	lineStart   = `{"ok":true,`
	lineEnd     = "}\n"
	valueField  = `"value":`
	binaryField = `"value_b64":`
	bundleField = `,"bundle":true`
)

// A kind is the type of a secret: text, binary, or bundle.
type kind uint8

const (
	textKind   kind = iota
	binaryKind      // bytes, sent to clients in base64
	bundleKind      // named fields, sent to clients as a string that contains a JSON object
)

func kindOf(secret wire.PushedSecret) kind {
	switch {
	case secret.Binary:
		return binaryKind
	case secret.Value[0] == '{':
		return bundleKind
	}
	return textKind
}

// maxLineLength returns the number of bytes that writeLine needs at most for a secret.
func maxLineLength(secret wire.PushedSecret) int {
	n := len(lineStart) + len(lineEnd)
	switch kindOf(secret) {
	case textKind:
		n += len(valueField) + len(secret.Value)
	case binaryKind:
		n += len(binaryField) + len(secret.Value)
	case bundleKind: // writeLine adds two quotes, and at most one backslash before each byte
		n += len(valueField) + 2 + 2*len(secret.Value) + len(bundleField)
	}
	return n
}

// writeLine writes the response line of a secret to dst, and returns the length of the line. dst
// must have at least maxLineLength bytes.
func writeLine(dst []byte, secret wire.PushedSecret) int {
	n := copy(dst, lineStart)
	switch kindOf(secret) {
	case textKind:
		n += copy(dst[n:], valueField)
		n += copy(dst[n:], secret.Value)
	case binaryKind:
		n += copy(dst[n:], binaryField)
		n += copy(dst[n:], secret.Value)
	case bundleKind:
		n += copy(dst[n:], valueField)
		n += quoteCompact(dst[n:], secret.Value)
		n += copy(dst[n:], bundleField)
	}
	return n + copy(dst[n:], lineEnd)
}

// quoteCompact removes the white space between the tokens of source, which must be valid JSON
// text. It writes the result to dst as one JSON string, and returns the length of this string.
// Valid JSON text without this white space contains no control characters, so only quotes and
// backslashes need escapes.
func quoteCompact(dst, source []byte) int {
	n := 0
	put := func(c byte) { dst[n] = c; n++ }
	put('"')
	inString, escaped := false, false
	for len(source) > 0 {
		if inString && !escaped {
			plain := wire.PlainLength(source)
			n += copy(dst[n:], source[:plain])
			source = source[plain:]
		}
		c := source[0]
		source = source[1:]
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

// A Value is a secret in a snapshot. Its bytes are a part of the snapshot's memory, so use them
// only before you release the snapshot.
type Value struct {
	// Line is the whole response to a get, including its newline.
	Line []byte
	// Since is the generation of the last push that added or changed the secret.
	Since uint64
}

// Fields returns the JSON members that describe the secret in a response
// (schema.SecretValue). It returns a part of Line, not a copy.
func (v Value) Fields() []byte { return v.Line[len(lineStart) : len(v.Line)-len(lineEnd)] }
