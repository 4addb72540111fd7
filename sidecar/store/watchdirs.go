package store

import (
	"io/fs"
	"os"
	"path/filepath"
)

// parentDirs returns the directory that contains path. If path is a symbolic link,
// parentDirs also returns the directory that contains the target of the link.
//
// If the directory that contains path does not exist, parentDirs returns the nearest
// existing directory above it. This existing directory receives an event when the missing
// directory is created.
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
