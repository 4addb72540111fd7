package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// PrintJSON writes v as JSON with an indent of two spaces. In strings, it escapes each
// character that is not visible, except spaces, and marks that markCounter refuses, because an operator can read the output on a
// terminal. Some invisible characters change the order of the characters in a line ("Trojan
// Source", CVE-2021-42574).
func PrintJSON(w io.Writer, v any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	var escaped strings.Builder
	var marks markCounter
	for _, r := range text.String() { // the encoder writes valid UTF-8
		if marks.accepts(r) && (r == '\n' || r == ' ' || isVisible(r)) {
			escaped.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) { // only a string can contain such a character
			fmt.Fprintf(&escaped, `\u%04x`, unit)
		}
	}
	_, err := io.WriteString(w, escaped.String())
	return err
}

// Plural returns a count with its noun, for example "1 secret" or "2 secrets".
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
