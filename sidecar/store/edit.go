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

// Set writes a secret. If name has the form BUNDLE/FIELD, Set writes a field of a bundle.
// The file of the secret has mode 0600. Set first writes a temporary file. Then it
// renames the temporary file to the name of the secret, so a reader never sees an
// incomplete value.
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
	// The name of the temporary file begins with a dot, so the sidecar ignores the
	// unfinished file. CreateTemp creates the file with mode 0600.
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // has no effect after a successful rename
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
	// Rename the bundle's directory before deleting the directory, so that all fields of
	// the bundle disappear from the store in one step.
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

// List returns the names of the secrets in sorted order. For a bundle, List returns each
// field as BUNDLE/FIELD.
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

// secretPath returns the path of the file that contains a secret or a field. It checks
// the name first, so the path is always inside the directory of the store.
func (d Dir) secretPath(name string) (string, error) {
	for i, part := range strings.Split(name, "/") {
		if i > 1 || !schema.ValidSecretName(part) {
			return "", fmt.Errorf("invalid name: use NAME or BUNDLE/FIELD; each part must match %s", schema.SecretNamePattern)
		}
		if isIgnored(part) {
			return "", fmt.Errorf("invalid name: the sidecar ignores the name %s, because editors create temporary files with such names", part)
		}
	}
	return filepath.Join(d.Path, name), nil
}
