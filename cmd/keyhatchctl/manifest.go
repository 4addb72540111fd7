package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// readManifest reads and validates the manifest in dir, which the operator will approve. The
// broker validates the manifest again. But the broker does not get the path of the file, so its
// error cannot contain the path.
func readManifest(dir string) (manifest.File, *manifest.Manifest, error) {
	trees := newTreeReader(&globalOptions{}, schema.StatusResponse{})
	defer trees.close()
	file, err := trees.readManifest(dir)
	if errors.Is(err, manifest.ErrNotFound) {
		return file, nil, &cli.Error{Err: fmt.Errorf("%s: %w", cli.PrintableWord(dir), err),
			Hint: fmt.Sprintf("write these lines into %s:\nschema_version: %d\nproject: %s\nsecrets: {NPM_TOKEN: }",
				cli.PrintableWord(filepath.Join(dir, manifest.Locations[0])), schema.ManifestVersion, manifest.SuggestName(filepath.Base(dir)))}
	}
	if err != nil {
		return file, nil, fmt.Errorf("%s: %w", cli.PrintableWord(dir), err)
	}
	parsed, err := manifest.Parse(file.Text)
	if err != nil {
		return file, nil, &cli.Error{Err: fmt.Errorf("%s: %w", cli.PrintableWord(filepath.Join(dir, file.Path)), err), Hint: correctManifestHint}
	}
	return file, parsed, nil
}

// A treeManifest is the manifest in the directory of a registered project. This manifest can
// differ from the approved manifest.
type treeManifest struct {
	file     manifest.File
	parsed   *manifest.Manifest // nil if the manifest is missing or invalid
	err      error              // why the manifest could not be read or parsed, or nil
	approved bool               // the manifest has the same text as the approved manifest
}

func readTreeManifest(p schema.ProjectStatus) (m treeManifest) {
	if m.file, m.err = manifest.Read(p.ProjectPath); m.err != nil {
		return m
	}
	sum := sha256.Sum256(m.file.Text)
	m.approved = hex.EncodeToString(sum[:]) == p.ManifestSHA256
	m.parsed, m.err = manifest.Parse(m.file.Text)
	return m
}

func (m treeManifest) isMissing() bool { return errors.Is(m.err, manifest.ErrNotFound) }

// otherName returns the name in the manifest if it is not the project's name. Otherwise it
// returns "". The broker serves a project under the name that was registered.
func (m treeManifest) otherName(p schema.ProjectStatus) schema.ProjectName {
	if m.parsed == nil || m.parsed.Project == p.Name {
		return ""
	}
	return m.parsed.Project
}

// state describes the manifest in one column of a table.
func (m treeManifest) state(p schema.ProjectStatus) string {
	state := "changed since approval"
	switch {
	case m.approved:
		state = "approved"
	case m.isMissing():
		return "manifest removed"
	case errors.Is(m.err, fs.ErrNotExist), errors.Is(m.err, syscall.ENOTDIR):
		return "directory removed"
	case m.file.Text == nil:
		return "unreadable"
	case m.parsed == nil:
		return "changed, but invalid"
	}
	if name := m.otherName(p); name != "" {
		state += "; the manifest has the name " + string(name)
	}
	return state
}
