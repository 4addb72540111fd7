package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// PrintJSON writes v as JSON with an indent of two spaces. An operator can read this output on a
// terminal, on which some invisible characters change the order of the characters in a line
// ("Trojan Source", CVE-2021-42574). Therefore PrintJSON escapes each character of a string that
// is neither visible nor a space. It also escapes the marks that markCounter refuses.
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
	for _, r := range text.String() { // the encoder writes valid UTF-8, so each r is a character
		if marks.accepts(r) && (r == '\n' || r == ' ' || isVisible(r)) {
			escaped.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) { // r is in a string, because JSON contains such a character only in strings
			fmt.Fprintf(&escaped, `\u%04x`, unit)
		}
	}
	_, err := io.WriteString(w, escaped.String())
	return err
}

// Plural returns n and the noun, to which it adds an s unless n is 1. Examples are "1 secret" and
// "2 secrets".
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
