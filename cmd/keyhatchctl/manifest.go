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

// approved reads the manifest that is about to be approved. It is checked here
// too, because here there is a file to name.
func approved(dir string, name schema.ProjectName) (string, error) {
	text, file, err := manifest.Read(dir)
	if errors.Is(err, manifest.ErrNotFound) {
		return "", &cli.Failure{Err: fmt.Errorf("%s: %w", dir, err),
			Hint: "write it: schema_version: 1, project: " + string(name) + ", and secrets: with the names that it may fetch"}
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	if _, err := manifest.Parse(text, name); err != nil {
		return "", &cli.Failure{Err: fmt.Errorf("%s: %w", filepath.Join(dir, file), err), Hint: "mend the manifest and try again; nothing was changed"}
	}
	return string(text), nil
}

// drift compares the manifest in the tree with what was approved. It changes
// nothing by itself: the tree is the container's, the approval the operator's.
func drift(p schema.ProjectStatus) string {
	text, _, err := manifest.Read(p.ProjectPath)
	if err != nil {
		return "unreadable"
	}
	sum := sha256.Sum256(text)
	if hex.EncodeToString(sum[:]) != p.ManifestSHA256 {
		return "changed since approval"
	}
	return "approved"
}
