package cli

import (
	"encoding/json"
	"io"
)

// PrintJSON writes v for machines: two spaces of indent, a newline at the end.
func PrintJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
