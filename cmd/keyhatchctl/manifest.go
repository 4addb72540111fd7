package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// readManifest reads the manifest that the operator approves, and validates it. The
// broker validates the manifest again, but its error cannot contain the path of the file.
func readManifest(dir string) (manifest.File, *manifest.Manifest, error) {
	file, err := manifest.Read(dir)
	if errors.Is(err, manifest.ErrNotFound) {
		name := filepath.Base(dir)
		if !schema.ValidProjectName(name) {
			name = "NAME"
		}
		return file, nil, &cli.Error{Err: fmt.Errorf("%s: %w", cli.Printable(dir), err),
			Hint: "write three lines into the file: schema_version: 1, project: " + name + ", and secrets: {SECRET: }"}
	}
	if err != nil {
		return file, nil, fmt.Errorf("%s: %w", cli.Printable(dir), err)
	}
	parsed, err := manifest.Parse(file.Text)
	if err != nil {
		return file, nil, &cli.Error{Err: fmt.Errorf("%s: %w", cli.Printable(filepath.Join(dir, file.Path)), err), Hint: correctManifestHint}
	}
	return file, parsed, nil
}

// manifestState compares the manifest in the project's directory with the approved
// manifest. It returns "approved", "changed since approval", or "unreadable".
func manifestState(p schema.ProjectStatus) string {
	file, err := manifest.Read(p.ProjectPath)
	if err != nil {
		return "unreadable"
	}
	sum := sha256.Sum256(file.Text)
	if hex.EncodeToString(sum[:]) != p.ManifestSHA256 {
		return "changed since approval"
	}
	return "approved"
}

// manifestStateText returns a state other than "approved" as the end of a sentence.
func manifestStateText(state string) string {
	if state == "unreadable" {
		return "cannot be read"
	}
	return "has changed since it was approved"
}
