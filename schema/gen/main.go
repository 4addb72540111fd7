// Gen generates the published JSON Schemas, keyhatch.v2.json and manifest.v1.json. It
// generates them from the Go types, the comments, and the tables of operations and events
// in package schema. go generate runs Gen in the directory schema. The only input of Gen
// is the source of this repository.
//
// rules.go adds the rules that a Go type cannot express, for example a pattern or a
// limit. The output of two runs is identical, so a test can compare it with the committed
// files.
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
