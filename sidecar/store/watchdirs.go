package store

import (
	"io/fs"
	"os"
	"path/filepath"
)

// parentDirs returns the directory that path is in and, where path is a link, the one
// that its target is in. Of a directory that does not exist it is the nearest
// above that does: there its coming will be an event.
func parentDirs(path string) []string {
	dirs := []string{nearestExistingDir(path)}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSymlink {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, nearestExistingDir(target))
		}
	}
	return dirs
}

// nearestExistingDir returns the nearest directory above path that exists.
func nearestExistingDir(path string) string {
	for {
		dir := filepath.Dir(path)
		if info, err := os.Stat(dir); (err == nil && info.IsDir()) || dir == path {
			return dir
		}
		path = dir
	}
}
