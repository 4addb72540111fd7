package manifest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// maxEffectLine is the maximum length of a line of a template in Effect.Text. Terminals
// usually have at least 80 columns, and keyhatchctl indents the lines. A terminal would
// continue a longer line at its left edge. A template could then forge lines that begin there,
// for example other changes or the question for approval.
const maxEffectLine = 72

// fileText returns the text of a file's effect (see Effect.Text). Modes with the same bits,
// for example 600 and 0600, give the same text.
func fileText(in *schema.Injection) string {
	text := fmt.Sprintf("file %s, mode %s, with ", QuoteWord(in.Path), formatMode(in.Mode))
	if in.Template == "" {
		return text + "the value of the secret"
	}
	return text + "this text:\n" + strings.Join(templateLines(in.Template), "\n")
}

func formatMode(mode string) string {
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err != nil { // Parse refuses a mode that is not octal
		return QuoteWord(mode)
	}
	return fmt.Sprintf("%04o", bits)
}

// templateLines formats a template as lines of Effect.Text. An operator cannot mistake such a
// line for another line of keyhatchctl's output, for example for a question.
func templateLines(template string) (lines []string) {
	parts := strings.Split(template, "\n")
	last := len(parts) - 1
	for i, part := range parts {
		if i == last && part == "" {
			return lines
		}
		prefix := "| "
		text := escape(part)
		for len(text) > maxEffectLine-len(prefix) {
			cut := maxEffectLine - len(prefix)
			lines = append(lines, prefix+text[:cut])
			prefix, text = ": ", text[cut:]
		}
		lines = append(lines, prefix+text)
	}
	return append(lines, "(the last line has no line break)")
}

// escape replaces every character that is not printable ASCII with its escape sequence in
// a Go string, and doubles each backslash. It returns different texts for different
// strings. Some characters that are not ASCII are invisible, combine with other characters,
// look like ASCII characters, or change the order of the characters in a line
// ("Trojan Source", CVE-2021-42574).
func escape(s string) string {
	quoted := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./~@%+:=\[\]-]+$`)

// QuoteWord formats s as one word of a message. If s contains a character that is unusual in
// paths and names, QuoteWord quotes s. The result contains no space. Therefore the result
// cannot look like a sentence.
func QuoteWord(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return strings.ReplaceAll(strconv.QuoteToASCII(s), " ", `\x20`)
}
