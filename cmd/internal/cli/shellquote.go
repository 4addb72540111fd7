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

// maxPlainWords is the maximum length, in bytes, of a text with spaces that ShellQuote puts in
// single quotes without escape sequences.
const maxPlainWords = 80

// ShellQuote returns s as one word of a shell command, so that the user can paste a hint with
// this word into a shell. A short text of usual words, for example the path '/home/me/My App',
// stays readable between single quotes. For any other s with a space, a single quote, a
// backslash, or a character that is not visible, the word calls printf, and contains escape
// sequences. Otherwise a long path with spaces could look like several lines, because a terminal
// continues a long line at its left edge. In contrast to other shells, fish reads escape
// sequences between single quotes, so a backslash could end the quotes.
//
// ShellQuote does not use the form $'...' of bash, because other shells end this form at an
// escaped quote. A shell removes line breaks at the end of the output of printf, so s must not
// end with a line break.
func ShellQuote(s string) string {
	if needsNoQuotes.MatchString(s) {
		return s
	}
	if len(s) <= maxPlainWords && plainWords.MatchString(s) {
		return "'" + s + "'"
	}
	if escapeUnprintable(s) == s && !strings.ContainsAny(s, ` '\`) {
		return "'" + s + "'"
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

// QuoteWords quotes each word with ShellQuote, and returns the words as one shell command.
func QuoteWords(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = ShellQuote(word)
	}
	return strings.Join(quoted, " ")
}
