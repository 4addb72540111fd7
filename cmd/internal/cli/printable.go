package cli

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable returns s unchanged if s is not empty, all its characters are visible, and it
// contains no spaces except single spaces between words. Otherwise, Printable returns s as a Go
// string in double quotes, in which each pair of adjacent spaces is escaped. Use Printable for
// sentences, for example messages of another program. Without Printable, such a sentence could
// look like another row or column of a table, or clear the screen.
func Printable(s string) string {
	if s != "" && escapeUnprintable(s) == s && strings.TrimSpace(s) == s && !strings.Contains(s, "  ") {
		return s
	}
	return strings.ReplaceAll(quote(s), "  ", `\x20\x20`)
}

// PrintableWord is like Printable, but it also escapes single spaces. Use PrintableWord for paths
// and names, which untrusted code can choose. A terminal continues a long line at its left edge,
// so a long path with spaces could look like several lines.
func PrintableWord(s string) string {
	if s != "" && escapeUnprintable(s) == s && !strings.Contains(s, " ") {
		return s
	}
	return strings.ReplaceAll(quote(s), " ", `\x20`)
}

func quote(s string) string {
	return `"` + escapeUnprintable(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)) + `"`
}

// escapeUnprintable replaces some parts of s with their escape sequences in a Go string: each
// character that isVisible does not accept, except spaces, each byte that is not valid UTF-8, and
// the marks that markCounter refuses.
func escapeUnprintable(s string) string {
	var b strings.Builder
	var marks markCounter
	for i, size := 0, 0; i < len(s); i += size {
		var r rune
		r, size = utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case marks.accepts(r) && (r == ' ' || isVisible(r)):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// isVisible reports whether a character is visible on a terminal. A space is not visible. Outside
// of ASCII, isVisible accepts letters, marks, numbers, and punctuation, except blank ones such as
// U+3164. A long row of blank characters could move the rest of a line to the next line.
// isVisible refuses all symbols outside of ASCII, because some of them are blank too, for example
// U+2800.
func isVisible(r rune) bool {
	if r < utf8.RuneSelf {
		return r > ' ' && r < 0x7f
	}
	return unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P) &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, blankLetters)
}

// maxMarks is the maximum number of marks that can follow each other. markCounter refuses further
// marks.
const maxMarks = 2

// A markCounter counts the marks that follow each other in a text. Unicode calls a character such
// as an accent a mark if it belongs to the letter before it. Some terminals print many marks of
// one letter over the neighboring lines.
type markCounter int

// accepts reports whether the next character of the text can be printed unescaped. It returns
// false for a mark that follows maxMarks other marks.
func (c *markCounter) accepts(r rune) bool {
	if !unicode.In(r, unicode.M, koreanMarks) {
		*c = 0
		return true
	}
	*c++
	return *c <= maxMarks
}

// koreanMarks contains the letters of Korean that a terminal prints over the letter before them.
var koreanMarks = &unicode.RangeTable{R16: []unicode.Range16{{Lo: 0x1160, Hi: 0x11ff, Stride: 1}, {Lo: 0xd7b0, Hi: 0xd7ff, Stride: 1}}}

// blankLetters contains the blank letters and marks that Unicode does not define as ignorable:
// the Egyptian blanks, and the filler of the Khitan small script.
var blankLetters = &unicode.RangeTable{R32: []unicode.Range32{{Lo: 0x13441, Hi: 0x13442, Stride: 1}, {Lo: 0x16fe4, Hi: 0x16fe4, Stride: 1}}}

// printableLines escapes s for an error message. It keeps the line breaks within s and indents
// the lines after the first line. An error can quote text of another program or user. Without the
// indent, a line of this text could look like a hint or like another error.
func printableLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, line := range lines {
		lines[i] = escapeUnprintable(line)
	}
	return strings.Join(lines, "\n  ")
}
