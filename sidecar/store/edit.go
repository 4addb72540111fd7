package store

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// leftoverPrefix begins the names of the temporary files and directories of an edit. The
// sidecar ignores these names. After a crash, the next edit removes them, because they can
// contain a secret.
const leftoverPrefix = ".keyhatch-edit-"

// A ConflictError means that an edit was refused, because it would remove other values.
type ConflictError struct {
	reason string
	Remove string // the name to remove before the edit can succeed
}

func (e *ConflictError) Error() string { return e.reason }

// Create creates the directory of the store with mode 0700 if the directory does not exist.
func (d Dir) Create() (created bool, err error) {
	err = os.Mkdir(d.Path, 0o700)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err == nil, nil
	}
	return false, fmt.Errorf("cannot create the directory %s: %w", d.Path, errors.Unwrap(err))
}

// Set writes a secret. If name has the form BUNDLE/FIELD, Set writes a field of a bundle. The
// file of the secret has mode 0600 and contains exactly the bytes of value. If value is
// empty, the file contains a newline, because Read never uses an empty file. A reader sees
// the old or the new value, never a part of a value.
//
// Set does not replace a bundle by a secret or a secret by a bundle. It then returns a
// *ConflictError.
func (d Dir) Set(name string, value []byte) error {
	return d.edit("write", name, func(path string) error {
		bundle, _, isField := strings.Cut(name, "/")
		switch {
		case isField && !utf8.Valid(value):
			return errBinaryField
		case isField && isFile(filepath.Dir(path)):
			return &ConflictError{bundle + " is a secret and not a bundle", bundle}
		case !isField && isDir(path):
			return &ConflictError{bundle + " is a bundle and not a secret", bundle}
		case isField:
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			removeLeftovers(filepath.Dir(path))
		}
		temp, err := writeTemp(filepath.Dir(path), value)
		if err != nil {
			return err
		}
		defer os.Remove(temp) // has no effect after a successful rename
		return os.Rename(temp, path)
	})
}

// SetBundle writes all fields of a bundle in one step. A reader sees the old fields or the
// new fields, never some of both. If the bundle has other fields than the given fields, or
// if name is a secret, SetBundle changes nothing and returns a *ConflictError.
func (d Dir) SetBundle(name string, fields map[string][]byte) error {
	return d.edit("write", name, func(path string) error {
		if isFile(path) {
			return &ConflictError{name + " is a secret and not a bundle", name}
		}
		entries, err := os.ReadDir(path)
		exists := err == nil
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, entry := range entries {
			if _, given := fields[entry.Name()]; !given && !strings.HasPrefix(entry.Name(), leftoverPrefix) {
				remove := name + "/" + entry.Name()
				if isIgnored(entry.Name()) { // Remove refuses this name
					remove = name
				}
				return &ConflictError{"the bundle also contains " + entry.Name(), remove}
			}
		}
		temp, err := os.MkdirTemp(d.Path, leftoverPrefix)
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp) // after a successful exchange, this directory contains the old fields
		for _, field := range slices.Sorted(maps.Keys(fields)) {
			if !utf8.Valid(fields[field]) {
				return errBinaryField
			}
			fieldPath, err := Dir{Path: temp}.secretPath(field)
			if err != nil {
				return err
			}
			file, err := writeTemp(temp, fields[field])
			if err == nil {
				err = os.Rename(file, fieldPath)
			}
			if err != nil {
				return err
			}
		}
		if err := syncDir(temp); err != nil {
			return err
		}
		if !exists {
			return os.Rename(temp, path)
		}
		if err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE); err != nil {
			return fmt.Errorf("%s: cannot replace the directory in one step: %w", path, err)
		}
		return nil
	})
}

// edit runs change with the path of a secret. Only one edit of a store runs at a time. After
// edit returns without an error, the change is on the disk.
func (d Dir) edit(verb, name string, change func(path string) error) error {
	path, err := d.secretPath(name)
	if err != nil {
		return err
	}
	unlock, err := d.lock()
	if err == nil {
		err = change(path)
		unlock()
	}
	if err == nil {
		err = syncDir(d.Path)
	}
	if err != nil {
		return fmt.Errorf("cannot %s %s: %w", verb, name, describePathError(err))
	}
	return nil
}

// lock waits for other edits of the store and then removes the leftovers of edits that were
// killed. Some network file systems cannot lock a directory. There, leftovers stay, because
// they can belong to an edit that is still running.
func (d Dir) lock() (unlock func(), err error) {
	dir, err := os.Open(d.Path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err == nil {
		removeLeftovers(d.Path)
	}
	return func() { dir.Close() }, nil
}

// removeLeftovers removes the temporary files and directories of killed edits. The lock must
// be held.
func removeLeftovers(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), leftoverPrefix) {
			os.RemoveAll(filepath.Join(dir, entry.Name()))
		}
	}
}

// writeTemp writes value to a new temporary file in dir. The file has mode 0600. If value is
// empty, writeTemp writes a newline.
func writeTemp(dir string, value []byte) (path string, err error) {
	if len(value) == 0 {
		value = []byte("\n")
	}
	f, err := os.CreateTemp(dir, leftoverPrefix)
	if err != nil {
		return "", err
	}
	if _, err = f.Write(value); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
	}
	return f.Name(), err
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

// Remove removes a secret, a field of a bundle, or a complete bundle.
func (d Dir) Remove(name string) error {
	return d.edit("remove", name, func(path string) error {
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
		removed, err := os.MkdirTemp(d.Path, leftoverPrefix)
		if err != nil {
			return err
		}
		defer os.RemoveAll(removed)
		return os.Rename(path, filepath.Join(removed, "bundle"))
	})
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
