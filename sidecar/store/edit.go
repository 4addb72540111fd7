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
	parent, err := openEditDir(filepath.Dir(d.Path), unix.O_PATH)
	if err == nil {
		created, err = parent.makeDir(filepath.Base(d.Path))
		parent.Close()
	}
	if err != nil {
		err = fmt.Errorf("cannot create the directory %s: %w", d.Path, errors.Unwrap(err))
	}
	return created, err
}

// CheckSet returns an error if Set would fail for every value, for example because the store is not
// writable. If fields is not nil, CheckSet does the same for SetBundle with these fields. CheckSet
// changes nothing. A command calls CheckSet before it asks for the values. After CheckSet, Set and
// SetBundle can still fail, for example because of a value that is not valid or because the disk is
// full.
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
	if err = checkWritable(d.Path); err == nil {
		err = d.checkEdit(name, fields)
	}
	if bundle := filepath.Dir(path); err == nil && fields == nil && isDir(bundle) {
		err = checkWritable(bundle)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, describePathError(err))
	}
	return nil
}

// checkEdit calls checkSetBundle if fields is not nil, and otherwise checkSet.
func (d Dir) checkEdit(name string, fields []string) error {
	root, err := openEditDir(d.Path, unix.O_PATH)
	if err != nil {
		return err
	}
	defer root.Close()
	if fields != nil {
		return checkSetBundle(root, name, fields)
	}
	return checkSet(root, name)
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
// If the secret exists, the new file has the owner, the group, the permissions, and the ACL of the old
// file. If this is not possible, Set changes nothing. A file of a new secret has mode 0600. If
// root creates the file, the file belongs to the owner and the group of its directory. If the
// file of the secret is a symbolic link, Set replaces the link.
//
// Set does not replace a bundle by a secret or a secret by a bundle, and does not write to a
// bundle that is a symbolic link. In these cases, the error wraps a *ConflictError.
func (d Dir) Set(ctx context.Context, name string, value []byte) error {
	return d.edit(ctx, "write", name, func(root editDir) error {
		if err := checkSet(root, name); err != nil {
			return err
		}
		bundle, field, isField := strings.Cut(name, "/")
		if !isField {
			return replaceFile(root, name, value)
		}
		if err := CheckField(value); err != nil {
			return err
		}
		created, err := root.makeDir(bundle)
		if err != nil {
			return err
		}
		dir, err := root.openDir(bundle)
		if err == nil {
			err = replaceFile(dir, field, value)
			dir.Close()
		}
		if err != nil && created {
			root.removeDir(bundle)
		}
		return err
	})
}

// replaceFile writes value to a file in dir in one step.
func replaceFile(dir editDir, name string, value []byte) error {
	temp, err := writeTemp(dir, value, dir, name, dir)
	if err != nil {
		return err
	}
	if err := dir.rename(temp, dir, name); err != nil {
		dir.removeFile(temp)
		return err
	}
	return dir.Sync()
}

// checkSet returns a *ConflictError if Set must not write a secret or a field.
func checkSet(root editDir, name string) error {
	bundle, _, isField := strings.Cut(name, "/")
	switch {
	case isField && root.isLink(bundle):
		return linkedBundleError(bundle)
	case isField && root.isFile(bundle):
		return &ConflictError{bundle + " is a secret and not a bundle", bundle}
	case !isField && root.isDir(bundle):
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
// if name is a secret, SetBundle changes nothing, and the error wraps a *ConflictError. If the bundle
// contains anything that is not a field, the error wraps a *ForeignError. The
// owners and the permissions are the same as with Set. If the bundle is a symbolic link, SetBundle
// replaces the link.
func (d Dir) SetBundle(ctx context.Context, name string, fields map[string][]byte) error {
	return d.edit(ctx, "write", name, func(root editDir) (err error) {
		names := slices.Sorted(maps.Keys(fields))
		if err := checkSetBundle(root, name, names); err != nil {
			return err
		}
		temp, tempName, err := root.makeTempDir()
		if err != nil {
			return err
		}
		isWritten := false
		defer func() {
			temp.Close()
			if !isWritten {
				root.removeTemp(tempName, maxTempDepth)
				return
			}
			// After RENAME_EXCHANGE, the temporary directory contains the old fields.
			err = root.removeOldBundle("the new bundle was written", root, tempName, name, names)
		}()
		if err := fillBundle(root, name, temp, names, fields); err != nil {
			return err
		}
		if _, err := root.mode(name, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, fs.ErrNotExist) {
			return root.rename(tempName, root, name)
		}
		path := filepath.Join(d.Path, name)
		err = asCannotRename(path, unix.Renameat2(root.fd(), tempName, root.fd(), name, unix.RENAME_EXCHANGE))
		if err != nil && !errors.Is(err, ErrCannotRename) {
			return fmt.Errorf("%s: cannot replace the directory in one step: %w", path, err)
		}
		isWritten = err == nil
		return err
	})
}

// fillBundle writes all fields of the bundle name to the temporary directory temp, and gives temp the
// owner and the permissions of the bundle.
func fillBundle(root editDir, name string, temp editDir, names []string, fields map[string][]byte) error {
	old, parent := editDir{}, root // new files belong to the owner of the directory parent
	if !root.isLink(name) && root.isDir(name) {
		dir, err := root.openDir(name)
		if err != nil {
			return err
		}
		defer dir.Close()
		old, parent = dir, dir
	}
	for _, field := range names {
		if err := CheckField(fields[field]); err != nil {
			return err
		}
		if err := checkName(field); err != nil {
			return err
		}
		replaced := field
		if old.File == nil {
			replaced = ""
		}
		file, err := writeTemp(temp, fields[field], old, replaced, parent)
		if err == nil {
			err = temp.rename(file, temp, field)
		}
		if err != nil {
			return err
		}
	}
	if err := setOwner(temp.File, root, name, parent); err != nil {
		return err
	}
	return temp.Sync()
}

// checkSetBundle returns a *ConflictError or a *ForeignError if SetBundle must not write these fields. If
// it cannot read the directory of the bundle, it returns the error of the system.
func checkSetBundle(root editDir, name string, fields []string) error {
	if root.isFile(name) {
		return &ConflictError{name + " is a secret and not a bundle", name}
	}
	isLink := root.isLink(name)
	open := root.openDir
	if isLink { // SetBundle replaces the link, so this function only reads names in the target
		open = func(name string) (editDir, error) { return openEditDir(filepath.Join(root.Name(), name), 0) }
	}
	dir, err := open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if !isLink {
		if err := dir.checkOnlyFields(); err != nil {
			return err
		}
	}
	entries, err := dir.names()
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !slices.Contains(fields, entry) && !strings.HasPrefix(entry, leftoverPrefix) {
			remove := name + "/" + entry
			if isLink { // Remove cannot remove a field of a linked bundle
				remove = name
			}
			return &ConflictError{"the bundle also contains " + entry, remove}
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

// edit runs change with the open directory of the store. Only one edit of a store runs at a time, unless
// the file system has no locks (see lock). If ctx ends before edit has the lock, edit changes nothing,
// and the error wraps ctx.Err(). After edit has the lock, the end of ctx has no effect. Before edit
// returns without an error, it waits until the changed entries of the store's directory and of the
// bundle's directory are on the disk.
func (d Dir) edit(ctx context.Context, verb, name string, change func(root editDir) error) error {
	if err := checkName(name); err != nil {
		return err
	}
	root, err := d.lock(ctx)
	if err == nil {
		if err = change(root); err == nil {
			err = root.Sync()
		}
		root.Close() // also unlocks the store
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
// changes nothing, and the error wraps a *ConflictError. If Remove would delete anything that is not a
// secret or a field, Remove changes nothing, and the error wraps a *ForeignError.
func (d Dir) Remove(ctx context.Context, name string) error {
	return d.edit(ctx, "remove", name, func(root editDir) error {
		bundle, field, isField := strings.Cut(name, "/")
		if !isField {
			return removeSecret(root, name)
		}
		if root.isLink(bundle) {
			return linkedBundleError(bundle)
		}
		dir, err := root.openDir(bundle)
		if err != nil {
			return asNoSecret(err)
		}
		defer dir.Close()
		if dir.hasType(field, unix.AT_SYMLINK_NOFOLLOW, unix.S_IFDIR) {
			return &ForeignError{dir.Name(), []string{field + "/"}}
		}
		if err := dir.removeFile(field); err != nil {
			return asNoSecret(err)
		}
		return dir.Sync()
	})
}

// If err means that a file does not exist, asNoSecret returns an error that reports a missing secret.
// It returns all other errors unchanged.
func asNoSecret(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return errors.New("the store has no such secret")
	}
	return err
}

// removeSecret removes a secret or a complete bundle from the store.
func removeSecret(root editDir, name string) error {
	if !root.hasType(name, unix.AT_SYMLINK_NOFOLLOW, unix.S_IFDIR) {
		return asNoSecret(root.removeFile(name))
	}
	if root.isMount(name) {
		return &ForeignError{root.Name(), []string{name + " (a mount point)"}}
	}
	dir, err := root.openDir(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	// List the fields before the check. removeOldBundle does not delete a file that is created later.
	fields, err := dir.names()
	if err != nil {
		return err
	}
	if err := dir.checkOnlyFields(); err != nil {
		return err
	}
	// Rename the bundle's directory before deleting the directory, so that all fields of
	// the bundle disappear from the store in one step.
	temp, tempName, err := root.makeTempDir()
	if err != nil {
		return err
	}
	defer temp.Close()
	if err := root.rename(name, temp, removedBundle); err != nil {
		root.removeDir(tempName)
		return asCannotRename(filepath.Join(root.Name(), name), err)
	}
	err = root.removeOldBundle("the bundle was removed", temp, removedBundle, name, fields)
	root.removeDir(tempName) // has no effect if an old field remains
	return err
}

// List returns the names of the secrets in sorted order. For a bundle, List returns each
// field as BUNDLE/FIELD. List does not check whether Read can use the files.
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
	return filepath.Join(d.Path, name), checkName(name)
}

// checkName returns an error if an edit cannot write a secret or a field with this name.
func checkName(name string) error {
	for i, part := range strings.Split(name, "/") {
		if i > 1 || !schema.ValidSecretName(part) {
			return fmt.Errorf("invalid name: use NAME or BUNDLE/FIELD; each part must match %s", schema.SecretNamePattern)
		}
		if isIgnored(part) {
			return fmt.Errorf("invalid name: the sidecar ignores the name %s, because editors create temporary files with such names", part)
		}
	}
	return nil
}
