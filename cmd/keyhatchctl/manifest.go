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
// broker validates the manifest again, but it does not know the path of the file for
// an error.
func readManifest(dir string, name schema.ProjectName) (string, error) {
	text, file, err := manifest.ReadFromDir(dir)
	if errors.Is(err, manifest.ErrNotFound) {
		return "", &cli.Error{Err: fmt.Errorf("%s: %w", dir, err),
			Hint: "write three lines into the file: schema_version: 1, project: " + string(name) + ", and secrets: {NAME: }"}
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	if _, err := manifest.Parse(text, name); err != nil {
		return "", &cli.Error{Err: fmt.Errorf("%s: %w", filepath.Join(dir, file), err), Hint: correctManifestHint}
	}
	return string(text), nil
}

// manifestState compares the manifest in the project's tree with the approved
// manifest: "approved", "changed since approval", or "unreadable". The container can
// write to the tree, so a difference is only reported.
func manifestState(p schema.ProjectStatus) string {
	text, _, err := manifest.ReadFromDir(p.ProjectPath)
	if err != nil {
		return "unreadable"
	}
	sum := sha256.Sum256(text)
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
