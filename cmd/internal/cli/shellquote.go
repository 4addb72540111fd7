package cli

import (
	"regexp"
	"strings"
)

var needsNoQuotes = regexp.MustCompile(`^[A-Za-z0-9_./@%+=:,-]+$`)

// ShellQuote returns s as one word of a shell command, for a hint that can be pasted. If s
// contains a character that is not printable, the word has the form $'...' of bash and zsh.
func ShellQuote(s string) string {
	if needsNoQuotes.MatchString(s) {
		return s
	}
	if escapeUnprintable(s) == s {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return "$'" + escapeUnprintable(strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s)) + "'"
}

// QuoteWords returns words as one line of a shell.
func QuoteWords(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = ShellQuote(word)
	}
	return strings.Join(quoted, " ")
}
