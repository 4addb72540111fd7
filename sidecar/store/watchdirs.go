package store

import (
	"io/fs"
	"os"
	"path/filepath"
)

// above returns the directory that path is in and, where path is a link, the one
// that its target is in. Of a directory that does not exist it is the nearest
// above that does: there its coming will be an event.
func above(path string) []string {
	dirs := []string{nearest(path)}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSymlink {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, nearest(target))
		}
	}
	return dirs
}

func nearest(path string) string {
	for {
		dir := filepath.Dir(path)
		if info, err := os.Stat(dir); (err == nil && info.IsDir()) || dir == path {
			return dir
		}
		path = dir
	}
}
