package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// Set writes a secret, or with BUNDLE/FIELD a bundle's field, with mode 0600.
// The file appears whole, by rename.
func (d Dir) Set(name string, value []byte) error {
	path, err := d.secretPath(name)
	if err != nil {
		return err
	}
	for _, dir := range []string{d.Path, filepath.Dir(path)} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	// Begins with a dot, which a sidecar that looks meanwhile passes over.
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails where all went well
	if _, err = f.Write(value); err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Remove removes a secret, a bundle's field, or a whole bundle.
func (d Dir) Remove(name string) error {
	path, err := d.secretPath(name)
	if err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return os.Remove(path)
	}
	// Renamed first, so that the bundle goes in one step.
	removed, err := os.MkdirTemp(d.Path, ".gone-*")
	if err != nil {
		return err
	}
	if err := os.Rename(path, filepath.Join(removed, "bundle")); err != nil {
		os.Remove(removed)
		return err
	}
	return os.RemoveAll(removed)
}

// List returns the names of the secrets and of the bundles' fields, sorted.
func (d Dir) List() ([]string, error) {
	l, err := d.listFiles()
	names := make([]string, len(l.files))
	for i, f := range l.files {
		names[i] = f.name
	}
	return names, err
}

// secretPath checks a name before it becomes part of a path.
func (d Dir) secretPath(name string) (string, error) {
	for i, part := range strings.Split(name, "/") {
		if i > 1 || !schema.ValidSecretName(part) || isIgnored(part) {
			return "", fmt.Errorf("a name is NAME or BUNDLE/FIELD, each matching %s", schema.SecretNamePattern)
		}
	}
	return filepath.Join(d.Path, name), nil
}
