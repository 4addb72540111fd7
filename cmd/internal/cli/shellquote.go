package cli

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	needsNoQuotes = regexp.MustCompile(`^[A-Za-z0-9_./@%+=:,-]+$`)
	plainWords    = regexp.MustCompile(`^[A-Za-z0-9_./-]+( [A-Za-z0-9_./-]+)*$`)
)

// maxPlainWords is the maximum length of a text with spaces that ShellQuote only puts in quotes.
const maxPlainWords = 80

// ShellQuote returns s as one word of a shell command, for a hint that can be pasted. If s
// contains a space or a character that is not visible, the word usually calls printf. A terminal
// continues a long line at its left edge, so a long path with spaces could look like several
// lines. A short text of usual words, for example the path '/home/me/My App', stays readable. The
// form $'...' of bash is dangerous, because other shells end it at an escaped quote. A shell
// removes line breaks at the end of the output of printf, so s must not end with a line break.
func ShellQuote(s string) string {
	if needsNoQuotes.MatchString(s) {
		return s
	}
	if len(s) <= maxPlainWords && plainWords.MatchString(s) {
		return "'" + s + "'"
	}
	if escapeUnprintable(s) == s && !strings.Contains(s, " ") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder
	for _, c := range []byte(s) {
		if needsNoQuotes.Match([]byte{c}) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\0%03o`, c)
		}
	}
	return `"$(printf %b '` + b.String() + `')"`
}

// QuoteWords returns words as one line of a shell.
func QuoteWords(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = ShellQuote(word)
	}
	return strings.Join(quoted, " ")
}
