package store

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// leftoverPrefix begins the names of the temporary files and directories of an edit. The
// sidecar ignores these names. If an edit is killed, its temporary files can remain. The sidecar and
// later edits of the same store remove them, because they can contain a secret.
const leftoverPrefix = ".keyhatch-edit-"

// minLeftoverAge is how long a temporary file must be unchanged before it is reported if the file
// system has no locks. A running edit changes its temporary files more often.
const minLeftoverAge = time.Minute

// RemoveLeftovers removes the temporary files of killed edits from all directories of a store. It
// does not remove the files of an edit that is still running. remaining contains the paths of the
// files that it could not remove.
func RemoveLeftovers(source Store) (removed, remaining []string) {
	for _, dir := range dirsOf(source) {
		for _, path := range dir.leftovers() {
			if err := dir.removeLeftover(path); err == nil {
				removed = append(removed, path)
			} else {
				remaining = append(remaining, path)
			}
		}
	}
	return removed, remaining
}

// Leftovers returns the paths that RemoveLeftovers would try to remove.
func Leftovers(source Store) (paths []string) {
	for _, dir := range dirsOf(source) {
		paths = append(paths, dir.leftovers()...)
	}
	return paths
}

// dirsOf returns all directories of a store.
func dirsOf(source Store) (dirs []Dir) {
	switch source := source.(type) {
	case Dir:
		dirs = append(dirs, source)
	case Merged:
		for _, part := range source {
			dirs = append(dirs, dirsOf(part)...)
		}
	}
	return dirs
}

// leftovers returns the paths of the temporary files that belong to no running edit.
func (d Dir) leftovers() []string {
	if len(d.tempPaths()) == 0 {
		return nil
	}
	unlock, err := d.tryLock()
	if err == unix.EWOULDBLOCK {
		return nil
	}
	if err == nil {
		defer unlock()
		return d.tempPaths() // list again, because an edit can have ended before tryLock
	}
	var old []string
	for _, path := range d.tempPaths() {
		if info, err := os.Lstat(path); err == nil && time.Since(info.ModTime()) > minLeftoverAge {
			old = append(old, path)
		}
	}
	return old
}

// removeLeftover removes a temporary file or directory, unless an edit is running.
func (d Dir) removeLeftover(path string) error {
	unlock, err := d.tryLock()
	if err != nil {
		return err
	}
	defer unlock()
	return os.RemoveAll(path)
}

// tryLock locks the store if no edit is running. Otherwise it returns EWOULDBLOCK. It returns another
// error if the file system has no locks.
func (d Dir) tryLock() (unlock func(), err error) {
	dir, err := os.Open(d.Path)
	if err == nil {
		if err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return func() { dir.Close() }, nil
		}
		dir.Close()
	}
	return nil, err
}

// tempPaths returns the paths of all temporary files and directories of edits in the store and in its
// bundles. It does not follow symbolic links.
func (d Dir) tempPaths() (paths []string) {
	entries, _ := os.ReadDir(d.Path)
	for _, entry := range entries {
		path := filepath.Join(d.Path, entry.Name())
		if strings.HasPrefix(entry.Name(), leftoverPrefix) {
			paths = append(paths, path)
		} else if entry.IsDir() { // false for a symbolic link
			fields, _ := os.ReadDir(path)
			for _, field := range fields {
				if strings.HasPrefix(field.Name(), leftoverPrefix) {
					paths = append(paths, filepath.Join(path, field.Name()))
				}
			}
		}
	}
	return paths
}
