package cli

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Printable returns s if s is not empty, all its characters are printable, as defined by
// strconv.IsPrint, and it contains no spaces except single spaces between words. Otherwise,
// it returns s as a Go string in double quotes, in which two adjacent spaces are escaped. Use
// it for paths and names in tables and messages: the name of a directory can contain line
// breaks, escape sequences, and many spaces, and could otherwise look like another row or
// column, or clear the screen.
func Printable(s string) string {
	if s != "" && escapeUnprintable(s) == s && strings.TrimSpace(s) == s && !strings.Contains(s, "  ") {
		return s
	}
	return strings.ReplaceAll(strconv.Quote(s), "  ", `\x20\x20`)
}

// escapeUnprintable replaces each character of s that is not printable, and each byte that
// is not valid UTF-8, with its escape sequence in a Go string.
func escapeUnprintable(s string) string {
	var b strings.Builder
	for i, size := 0, 0; i < len(s); i += size {
		var r rune
		r, size = utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// printableLines escapes s for an error message. It keeps the line breaks and indents the
// lines after the first line. An error can quote text of another program or user, and that
// text must not look like a hint or like another error.
func printableLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, line := range lines {
		lines[i] = escapeUnprintable(line)
	}
	return strings.Join(lines, "\n  ")
}
