package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/keyhatch/keyhatch/schema"
)

// Set writes a secret. If name is BUNDLE/FIELD, Set writes a field of a bundle. The
// file has mode 0600. Set renames a complete file into place, so a reader never sees
// an incomplete value.
func (d Dir) Set(name string, value []byte) error {
	path, err := d.secretPath(name)
	if err != nil {
		return err
	}
	if err := d.write(path, value); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, describePathError(err))
	}
	return nil
}

func (d Dir) write(path string, value []byte) error {
	for _, dir := range []string{d.Path, filepath.Dir(path)} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cannot create the directory %s: %w", dir, errors.Unwrap(err))
		}
	}
	// The name begins with a dot, so the sidecar ignores the unfinished file.
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // creates it with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after a successful rename
	if _, err = f.Write(value); err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Remove removes a secret, a field of a bundle, or a complete bundle.
func (d Dir) Remove(name string) error {
	path, err := d.secretPath(name)
	if err != nil {
		return err
	}
	if err := d.remove(path); err != nil {
		return fmt.Errorf("cannot remove %s: %w", name, describePathError(err))
	}
	return nil
}

func (d Dir) remove(path string) error {
	if _, err := os.Stat(d.Path); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return errors.New("the store has no such secret")
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return os.Remove(path)
	}
	// Rename the bundle's directory before deleting it, so that all fields disappear in
	// one step.
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

// List returns the sorted names of the secrets. Each field of a bundle is listed as
// BUNDLE/FIELD.
func (d Dir) List() ([]string, error) {
	l, err := d.listFiles()
	if err != nil {
		return nil, fmt.Errorf("cannot read the store: %w", err)
	}
	names := make([]string, len(l.files))
	for i, f := range l.files {
		names[i] = f.name
	}
	return names, nil
}

// secretPath returns the path of a secret or a field. It checks the name first, so the
// path is always inside the store.
func (d Dir) secretPath(name string) (string, error) {
	for i, part := range strings.Split(name, "/") {
		if i > 1 || !schema.ValidSecretName(part) {
			return "", fmt.Errorf("invalid name: expected NAME or BUNDLE/FIELD, each matching %s", schema.SecretNamePattern)
		}
		if isIgnored(part) {
			return "", fmt.Errorf("invalid name: the sidecar ignores %s, because editors create temporary files with such names", part)
		}
	}
	return filepath.Join(d.Path, name), nil
}
