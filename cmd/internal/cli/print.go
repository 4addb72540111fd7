package cli

import (
	"encoding/json"
	"fmt"
	"io"
)

// PrintJSON writes v as JSON with an indent of two spaces.
func PrintJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// Plural returns a count with its noun, for example "1 secret" or "2 secrets".
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
