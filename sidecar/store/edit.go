package store

import (
	"context"
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

// A ConflictError means that an edit was refused, because it would remove other values or
// change a file outside of the store.
type ConflictError struct {
	reason string
	Remove string // the name to remove before the edit can succeed
}

func (e *ConflictError) Error() string { return e.reason }

// ErrCannotRename means that the file system cannot rename the directory of a bundle. So a
// complete bundle cannot be replaced or removed in one step. An overlay file system cannot rename a
// directory of a lower layer.
var ErrCannotRename = errors.New("the file system cannot rename the directory of this bundle")

// asCannotRename returns ErrCannotRename with the path of a bundle if err means that its directory
// cannot be renamed. It returns all other errors unchanged.
func asCannotRename(path string, err error) error {
	if errors.Is(err, syscall.EXDEV) {
		return fmt.Errorf("%s: %w", path, ErrCannotRename)
	}
	return err
}

// Create creates the directory of the store with mode 0700 if the directory does not exist.
func (d Dir) Create() (created bool, err error) {
	created, err = makeDir(d.Path)
	if err != nil {
		err = fmt.Errorf("cannot create the directory %s: %w", d.Path, errors.Unwrap(err))
	}
	return created, err
}

// CheckSet returns an error if Set would fail for every value. If fields is not nil, CheckSet
// checks SetBundle with these fields instead. CheckSet changes nothing. A command calls
// CheckSet before it asks for the values. Set and SetBundle can still fail, for example because
// of a value that is not valid or because the disk is full.
func (d Dir) CheckSet(name string, fields []string) error {
	path, err := d.secretPath(name)
	if err != nil {
		return err
	}
	for _, field := range fields {
		if _, err := d.secretPath(field); err != nil {
			return err
		}
	}
	if _, err := os.Stat(d.Path); errors.Is(err, fs.ErrNotExist) {
		if err := checkWritable(filepath.Dir(d.Path)); err != nil {
			return fmt.Errorf("cannot create the directory %s: %w", d.Path, errors.Unwrap(err))
		}
		return nil
	}
	err = checkWritable(d.Path)
	switch {
	case err != nil:
	case fields != nil:
		err = d.checkSetBundle(name, fields)
	default:
		err = d.checkSet(name)
		if bundle := filepath.Dir(path); err == nil && isDir(bundle) {
			err = checkWritable(bundle)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, describePathError(err))
	}
	return nil
}

// checkWritable returns an error if this process cannot create files in a directory.
func checkWritable(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		err = unix.ENOTDIR
	} else {
		err = unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}
	if err != nil {
		return &fs.PathError{Op: "access", Path: dir, Err: err}
	}
	return nil
}

// Set writes a secret. If name has the form BUNDLE/FIELD, Set writes a field of a bundle. The
// file of the secret contains exactly the bytes of value. If value is empty, the file
// contains a newline, because Read never uses an empty file. A reader sees the old or the new
// value, never a part of a value.
//
// If the secret exists, the new file has the owner, the group, and the permissions of the old
// file. If this is not possible, Set changes nothing. A file of a new secret has mode 0600. If
// root creates the file, the file belongs to the owner and the group of its directory. If the
// file of the secret is a symbolic link, Set replaces the link.
//
// Set does not replace a bundle by a secret or a secret by a bundle, and does not write to a
// bundle that is a symbolic link. In these cases, the error wraps a *ConflictError.
func (d Dir) Set(ctx context.Context, name string, value []byte) error {
	return d.edit(ctx, "write", name, func(path string) error {
		if err := d.checkSet(name); err != nil {
			return err
		}
		parent := filepath.Dir(path)
		if strings.Contains(name, "/") {
			if err := CheckField(value); err != nil {
				return err
			}
			created, err := makeDir(parent)
			if err != nil {
				return err
			}
			if created {
				defer os.Remove(parent) // has no effect after a successful rename
			}
		}
		temp, err := writeTemp(parent, value, path, parent)
		if err != nil {
			return err
		}
		defer os.Remove(temp) // has no effect after a successful rename
		return os.Rename(temp, path)
	})
}

// checkSet returns a *ConflictError if Set must not write a secret or a field.
func (d Dir) checkSet(name string) error {
	bundle, _, isField := strings.Cut(name, "/")
	path := filepath.Join(d.Path, bundle)
	switch {
	case isField && isLink(path):
		return linkedBundleError(bundle)
	case isField && isFile(path):
		return &ConflictError{bundle + " is a secret and not a bundle", bundle}
	case !isField && isDir(path):
		return &ConflictError{bundle + " is a bundle and not a secret", bundle}
	}
	return nil
}

// linkedBundleError returns the error for an edit of a field of a bundle that is a symbolic
// link. The target of the link can be outside of the store.
func linkedBundleError(bundle string) error {
	return &ConflictError{bundle + " is a symbolic link, and an edit does not change the target of a link", bundle}
}

// SetBundle writes all fields of a bundle in one step. A reader sees the old fields or the
// new fields, never some of both. If the bundle has other fields than the given fields, or
// if name is a secret, SetBundle changes nothing and returns a *ConflictError. The owners and
// the permissions are the same as with Set. If the bundle is a symbolic link, SetBundle
// replaces the link.
func (d Dir) SetBundle(ctx context.Context, name string, fields map[string][]byte) error {
	return d.edit(ctx, "write", name, func(path string) error {
		names := slices.Sorted(maps.Keys(fields))
		if err := d.checkSetBundle(name, names); err != nil {
			return err
		}
		temp, err := os.MkdirTemp(d.Path, leftoverPrefix)
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp) // after a successful exchange, this directory contains the old fields
		info, err := os.Lstat(path)
		exists := err == nil
		owner := d.Path // new files belong to the owner of this directory
		if exists && info.IsDir() {
			owner = path
		}
		for _, field := range names {
			if err := CheckField(fields[field]); err != nil {
				return err
			}
			fieldPath, err := Dir{Path: temp}.secretPath(field)
			if err != nil {
				return err
			}
			file, err := writeTemp(temp, fields[field], filepath.Join(path, field), owner)
			if err == nil {
				err = os.Rename(file, fieldPath)
			}
			if err != nil {
				return err
			}
		}
		if err := setDirOwner(temp, path, owner); err != nil {
			return err
		}
		if err := syncDir(temp); err != nil {
			return err
		}
		if !exists {
			return os.Rename(temp, path)
		}
		err = asCannotRename(path, unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE))
		if err != nil && !errors.Is(err, ErrCannotRename) {
			return fmt.Errorf("%s: cannot replace the directory in one step: %w", path, err)
		}
		return err
	})
}

// checkSetBundle returns a *ConflictError if SetBundle must not write these fields.
func (d Dir) checkSetBundle(name string, fields []string) error {
	path := filepath.Join(d.Path, name)
	if isFile(path) {
		return &ConflictError{name + " is a secret and not a bundle", name}
	}
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if !slices.Contains(fields, entry.Name()) && !strings.HasPrefix(entry.Name(), leftoverPrefix) {
			remove := name + "/" + entry.Name()
			if isIgnored(entry.Name()) || isLink(path) { // Remove refuses this name
				remove = name
			}
			return &ConflictError{"the bundle also contains " + entry.Name(), remove}
		}
	}
	return nil
}

// CheckField returns an error if value cannot be a field of a bundle.
func CheckField(value []byte) error {
	if !utf8.Valid(value) {
		return errBinaryField
	}
	return nil
}

// edit runs change with the path of a secret. Only one edit of a store runs at a time, unless
// the file system has no locks (see lock). If ctx ends before edit has the lock, edit changes nothing and
// returns ctx.Err(). After that, edit does not stop. Before edit returns without an error, it waits until
// the changed entries of the store's directory and of the bundle's directory are on the disk.
func (d Dir) edit(ctx context.Context, verb, name string, change func(path string) error) error {
	path, err := d.secretPath(name)
	if err != nil {
		return err
	}
	parent := filepath.Dir(path) // the directory of the store or of the bundle
	unlock, err := d.lock(ctx)
	if err == nil {
		err = change(path)
		unlock()
	}
	if err == nil {
		err = syncDir(parent)
	}
	if err == nil {
		err = syncDir(d.Path)
	}
	if err != nil {
		return fmt.Errorf("cannot %s %s: %w", verb, name, describePathError(err))
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().Type() == fs.ModeSymlink
}

// LinkTarget returns the path of the target if the secret, the field, or the bundle with this
// name is a symbolic link. If there is no such link, or if its target does not exist, LinkTarget
// returns "".
func (d Dir) LinkTarget(name string) string {
	path := filepath.Join(d.Path, name)
	if !isLink(path) {
		return ""
	}
	target, _ := filepath.EvalSymlinks(path) // "" after an error
	return target
}

// Remove removes a secret, a field of a bundle, or a complete bundle. It removes a symbolic
// link and not the target of the link. If the bundle of a field is a symbolic link, Remove
// returns a *ConflictError.
func (d Dir) Remove(ctx context.Context, name string) error {
	return d.edit(ctx, "remove", name, func(path string) error {
		if bundle, _, isField := strings.Cut(name, "/"); isField && isLink(filepath.Dir(path)) {
			return linkedBundleError(bundle)
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
		removed, err := os.MkdirTemp(d.Path, leftoverPrefix)
		if err != nil {
			return err
		}
		defer os.RemoveAll(removed)
		return asCannotRename(path, os.Rename(path, filepath.Join(removed, "bundle")))
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
