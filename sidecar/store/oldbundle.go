package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// removeOldBundle deletes the old directory of a bundle, which an edit has moved to the entry name of
// parent. It deletes only the known fields and the temporary files of edits. If the directory contains
// another file, a program has created this file during the edit. removeOldBundle then moves the file
// back to the bundle and returns an error. done describes the edit for this error.
func (d editDir) removeOldBundle(done string, parent editDir, name, bundle string, known []string) error {
	created, err := d.removeKnown(parent, name, bundle, known)
	if err != nil {
		return remainsError(done, parent, name, err)
	}
	if len(created) > 0 {
		return fmt.Errorf("%s, but during the edit, another program has created %s, which is still in the store", done, strings.Join(created, ", "))
	}
	return nil
}

// removeKnown does the work of removeOldBundle. created contains the paths of the files that it has
// moved back.
func (d editDir) removeKnown(parent editDir, name, bundle string, known []string) (created []string, err error) {
	if !parent.hasType(name, unix.AT_SYMLINK_NOFOLLOW, unix.S_IFDIR) {
		return nil, parent.removeFile(name) // the bundle was a symbolic link
	}
	dir, err := parent.openDir(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	for {
		names, err := dir.names()
		if err != nil {
			return nil, err
		}
		for _, entry := range names {
			if !slices.Contains(known, entry) && !strings.HasPrefix(entry, leftoverPrefix) {
				created = append(created, bundle+"/"+entry)
			} else if err := dir.removeTemp(entry, 0); err != nil {
				return nil, err
			}
		}
		if len(created) > 0 {
			return created, d.moveBack(parent, name, dir, bundle)
		}
		// If a program has just created a file in dir, removeDir returns ENOTEMPTY. Then list the names
		// again.
		if err := parent.removeDir(name); !errors.Is(err, unix.ENOTEMPTY) {
			return nil, err
		}
	}
}

// moveBack moves dir, the directory name in parent, back to d as the bundle. If the bundle exists,
// moveBack moves only the files in dir to the bundle, and removes dir.
func (d editDir) moveBack(parent editDir, name string, dir editDir, bundle string) error {
	err := unix.Renameat2(parent.fd(), name, d.fd(), bundle, unix.RENAME_NOREPLACE)
	if err != unix.EEXIST {
		return d.pathError("renameat2", bundle, err)
	}
	target, err := d.openDir(bundle)
	if err != nil {
		return err
	}
	defer target.Close()
	names, err := dir.names()
	for _, entry := range names {
		if err == nil {
			err = target.pathError("renameat2", entry, unix.Renameat2(dir.fd(), entry, target.fd(), entry, unix.RENAME_NOREPLACE))
		}
	}
	if err == nil {
		err = parent.removeDir(name)
	}
	return err
}

// remainsError returns the error for a temporary file that an edit could not remove.
func remainsError(done string, root editDir, temp string, err error) error {
	return fmt.Errorf("%s, but the old values remain in %s: %w", done, filepath.Join(root.Name(), temp), describePathError(err))
}
