// Gen generates the published JSON Schemas, keyhatch.v2.json and manifest.v1.json,
// from package schema: its Go types, its comments, and its tables of operations and
// events. go generate runs it in schema/. Its only input is the source of this
// repository.
//
// rules.go adds the rules that a Go type cannot express, for example a pattern or a
// limit. The output is deterministic, so that a test can compare it with the
// committed files.
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
