package cli

import (
	"regexp"
	"strings"
)

var needsNoQuotes = regexp.MustCompile(`^[A-Za-z0-9_./@%+=:,-]+$`)

// ShellQuote returns s as one word of a shell command, for a hint that can be pasted.
func ShellQuote(s string) string {
	if needsNoQuotes.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
