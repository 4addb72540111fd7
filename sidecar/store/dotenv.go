package store

import (
	"strings"
	"unicode"

	"github.com/keyhatch/keyhatch/schema"
)

// parseDotenv reads NAME=value lines:
//
//	# a comment, and empty lines
//	NAME=bare value          # up to white space and a #, trimmed
//	export NAME='as it is'   # may go over several lines
//	NAME="with \n \r \t \" \\ \$ and \` as escapes"
//
// Nothing is expanded: a $ is a $.
func parseDotenv(text string) (Set, error) {
	set := Set{}
	line := 0
	for len(text) > 0 {
		line++
		start := line
		var row string
		row, text, _ = strings.Cut(text, "\n")
		// What ends the row may belong to a quoted value that goes on behind it.
		row = strings.TrimLeftFunc(row, unicode.IsSpace)
		if row == "" || row[0] == '#' {
			continue
		}
		if rest, ok := strings.CutPrefix(row, "export "); ok {
			row = strings.TrimLeftFunc(rest, unicode.IsSpace)
		}
		name, value, ok := strings.Cut(row, "=")
		if !ok {
			return nil, errorAtLine(start, "it is not NAME=value")
		}
		name, value = strings.TrimSpace(name), strings.TrimLeftFunc(value, unicode.IsSpace)
		if !schema.ValidSecretName(name) {
			return nil, errorAtLine(start, "the name does not match %s", schema.SecretNamePattern)
		}
		if _, exists := set[schema.SecretName(name)]; exists {
			return nil, errorAtLine(start, "%s stands twice", name)
		}
		if value != "" && (value[0] == '"' || value[0] == '\'') {
			// The value may go on over the lines that follow.
			quoted := value[1:] + "\n" + text
			unquoted, consumed, ok := parseQuoted(quoted, value[0])
			if !ok {
				return nil, errorAtLine(start, "the quote of %s does not end", name)
			}
			trailing, rest, _ := strings.Cut(quoted[consumed:], "\n")
			if trailing = strings.TrimSpace(trailing); trailing != "" && trailing[0] != '#' {
				return nil, errorAtLine(start, "there is something behind the quote of %s", name)
			}
			line += strings.Count(quoted[:consumed], "\n")
			text, value = rest, unquoted
		} else {
			value = trimComment(strings.TrimSpace(value))
		}
		if strings.IndexByte(value, 0) >= 0 {
			return nil, errorAtLine(start, "%s holds a NUL byte", name)
		}
		set[schema.SecretName(name)] = Value{Bytes: []byte(value)}
	}
	return set, nil
}

// trimComment cuts a comment off an unquoted value. Only white space begins one: a
// password may hold a #.
func trimComment(value string) string {
	for i := 1; i < len(value); i++ {
		if value[i] == '#' && (value[i-1] == ' ' || value[i-1] == '\t') {
			return strings.TrimSpace(value[:i])
		}
	}
	if strings.HasPrefix(value, "#") {
		return ""
	}
	return value
}

// parseQuoted returns what is between the quotes and how much of text that took,
// the closing quote included.
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
			default: // not an escape of ours: both bytes are meant
				b.WriteByte('\\')
				b.WriteByte(text[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, false
}
