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

// readManifest reads and checks the manifest that the operator is about to approve.
// The broker checks it again, but only here can an error name the file.
func readManifest(dir string, name schema.ProjectName) (string, error) {
	text, file, err := manifest.ReadFromDir(dir)
	if errors.Is(err, manifest.ErrNotFound) {
		return "", &cli.Error{Err: fmt.Errorf("%s: %w", dir, err),
			Hint: "write it: schema_version: 1, project: " + string(name) + ", and secrets: with the names that it may fetch"}
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	if _, err := manifest.Parse(text, name); err != nil {
		return "", &cli.Error{Err: fmt.Errorf("%s: %w", filepath.Join(dir, file), err), Hint: "mend the manifest and try again; nothing was changed"}
	}
	return string(text), nil
}

// manifestState compares the manifest in the project's tree with the approved one.
// It changes nothing: the container can write the tree, and only the operator
// approves.
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
