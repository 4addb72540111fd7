// Gen writes the published JSON Schemas, keyhatch.v2.json and manifest.v1.json,
// from the Go types of package schema, their comments and the tables of
// operations and events. It runs in schema/, by go generate, on this
// repository's own source and nothing else.
//
// The types say what there is; rules.go adds what a Go type cannot say, such as
// a pattern or a bound. The output is the same for the same source, so that a
// test can compare it with the committed files.
package main

import (
	"fmt"
	"os"
)

func main() {
	documents, err := Documents()
	if err != nil {
		fmt.Fprintln(os.Stderr, "schema/gen:", err)
		os.Exit(1)
	}
	for name, text := range documents {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "schema/gen:", err)
			os.Exit(1)
		}
	}
}
