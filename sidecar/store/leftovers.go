package store

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// On a file system without locks, the sidecar reports a temporary file only after it has not changed
// for minLeftoverAge. A running edit changes its temporary files more often.
const minLeftoverAge = time.Minute

// RemoveLeftovers removes the temporary files of killed edits from all directories of a store. It
// does not remove the files of an edit that is still running. remaining contains the paths of the
// files that it could not remove.
func RemoveLeftovers(source Store) (removed, remaining []string) {
	for _, dir := range dirsOf(source) {
		for _, name := range dir.leftovers() {
			path := filepath.Join(dir.Path, name)
			if err := dir.removeLeftover(name); err == nil {
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
		for _, name := range dir.leftovers() {
			paths = append(paths, filepath.Join(dir.Path, name))
		}
	}
	return paths
}

// dirsOf returns all Dirs in a store, which can be a Merged.
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

// leftovers returns the names of the temporary files that belong to no running edit.
func (d Dir) leftovers() []string {
	if len(d.tempNames()) == 0 {
		return nil
	}
	root, err := d.tryLock()
	if err == unix.EWOULDBLOCK {
		return nil
	}
	if err == nil {
		defer root.Close()
		return d.tempNames() // list again, because an edit can have ended before tryLock
	}
	var old []string
	for _, name := range d.tempNames() {
		if info, err := os.Lstat(filepath.Join(d.Path, name)); err == nil && time.Since(info.ModTime()) > minLeftoverAge {
			old = append(old, name)
		}
	}
	return old
}

// removeLeftover removes a temporary file or directory, unless an edit is running.
func (d Dir) removeLeftover(name string) error {
	root, err := d.tryLock()
	if err != nil {
		return err
	}
	defer root.Close()
	return root.removeLeftover(name)
}

// removeLeftover removes a temporary file or directory of an edit from a store. name is a name that
// tempNames returned.
func (d editDir) removeLeftover(name string) error {
	bundle, file, isInBundle := strings.Cut(name, "/")
	if !isInBundle {
		return d.removeTemp(name, maxTempDepth)
	}
	dir, err := d.openDir(bundle)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.removeTemp(file, 0)
}

// tryLock locks the store if no edit is running, and returns its open directory. Otherwise it returns
// EWOULDBLOCK. It returns another error if it cannot open the directory of the store, or if the file system
// has no locks.
func (d Dir) tryLock() (editDir, error) {
	root, err := openEditDir(d.Path, 0)
	if err == nil {
		if err = unix.Flock(root.fd(), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return root, nil
		}
		root.Close()
	}
	return editDir{}, err
}

// tempNames returns the names of all temporary files and directories of edits in the store and in its
// bundles (BUNDLE/NAME). It does not follow symbolic links.
func (d Dir) tempNames() (names []string) {
	entries, _ := os.ReadDir(d.Path)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), leftoverPrefix) {
			names = append(names, entry.Name())
		} else if entry.IsDir() { // false for a symbolic link
			fields, _ := os.ReadDir(filepath.Join(d.Path, entry.Name()))
			for _, field := range fields {
				if strings.HasPrefix(field.Name(), leftoverPrefix) {
					names = append(names, entry.Name()+"/"+field.Name())
				}
			}
		}
	}
	return names
}
