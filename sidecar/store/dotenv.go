package store

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/keyhatch/keyhatch/schema"
)

// parseDotenv parses lines of the form NAME=value:
//
//	# comments and empty lines are ignored
//	NAME=unquoted value      # a # after white space begins a comment
//	export NAME='literal'    # a quoted value can contain newlines, but no line NAME=value
//	NAME="the escapes are \n \r \t \" \\ \$ and \`"
//
// parseDotenv does not expand variables. A $ in a value stays a $.
func parseDotenv(text string) (Set, error) {
	set := Set{}
	line := 0
	for len(text) > 0 {
		line++
		start := line
		var row string
		row, text, _ = strings.Cut(text, "\n")
		// Do not remove white space at the end of the line. This white space can be part
		// of a quoted value that continues on the next line.
		row = strings.TrimLeftFunc(row, unicode.IsSpace)
		if row == "" || row[0] == '#' {
			continue
		}
		if rest, ok := strings.CutPrefix(row, "export "); ok {
			row = strings.TrimLeftFunc(rest, unicode.IsSpace)
		}
		name, spacedValue, ok := strings.Cut(row, "=")
		if !ok {
			return nil, errorAtLine(start, "expected NAME=value")
		}
		name = strings.TrimSpace(name)
		value := strings.TrimLeftFunc(spacedValue, unicode.IsSpace)
		if !schema.ValidSecretName(name) {
			return nil, errorAtLine(start, "the name does not match %s", schema.SecretNamePattern)
		}
		if _, exists := set[schema.SecretName(name)]; exists {
			return nil, errorAtLine(start, "duplicate name %s", name)
		}
		if value != "" && (value[0] == '"' || value[0] == '\'') {
			// A quoted value can continue on the following lines.
			quoted := value[1:] + "\n" + text
			unquoted, consumed, ok := parseQuoted(quoted, value[0])
			if !ok {
				return nil, errorAtLine(start, "the value of %s has no closing quote", name)
			}
			trailing, rest, _ := strings.Cut(quoted[consumed:], "\n")
			if trailing = strings.TrimSpace(trailing); trailing != "" && trailing[0] != '#' {
				return nil, errorAtLine(start, "unexpected text after the closing quote of %s", name)
			}
			rows := strings.Split(quoted[:consumed-1], "\n")
			if i := slices.IndexFunc(rows[1:], assignment.MatchString); i >= 0 {
				return nil, errorAtLine(start, `the quoted value of %s contains line %d, which looks like another NAME=value: close the quote, or write the value in one line, in double quotes and with \n for each newline`, name, start+1+i)
			}
			line += len(rows) - 1
			text, value = rest, unquoted
		} else {
			value = trimComment(spacedValue)
		}
		if strings.IndexByte(value, 0) >= 0 {
			return nil, errorAtLine(start, "the value of %s contains a NUL byte", name)
		}
		set[schema.SecretName(name)] = Value{Bytes: []byte(value)}
	}
	return set, nil
}

// assignment matches a line of a quoted value that looks like NAME=value. The closing quote of an
// earlier line is then probably missing, and the quoted value contains other secrets. assignment
// does not match the last line of a base64 text, which can end with = or ==.
var assignment = regexp.MustCompile(`^\s*(export\s+)?[A-Za-z_][A-Za-z0-9_]*=[^=\s]`)

// trimComment removes a comment from an unquoted value. A # begins a comment only after white
// space, as in a shell. At any other place, a # can be part of a password.
func trimComment(value string) string {
	for i := 1; i < len(value); i++ {
		if value[i] == '#' && (value[i-1] == ' ' || value[i-1] == '\t') {
			return strings.TrimSpace(value[:i])
		}
	}
	return strings.TrimSpace(value)
}

// parseQuoted parses a quoted value. text begins after the opening quote. parseQuoted
// replaces the escapes in the value. It returns the value, and the number of bytes of
// text up to and including the closing quote.
func parseQuoted(text string, quote byte) (unquoted string, consumed int, ok bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == quote:
			return b.String(), i + 1, true
		case c == '\\' && quote == '"' && i+1 < len(text):
			i++
			switch text[i] {
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			case '"', '\\', '$', '`':
				b.WriteByte(text[i])
			default: // the two bytes are not an escape, so the backslash is part of the value
				b.WriteByte('\\')
				b.WriteByte(text[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, false
}
