package main

import (
	"os"
	"path/filepath"
)

// replaceFile replaces a file atomically, by renaming a temporary file. A reader sees either the
// whole old text or the whole new text, also after a power failure. replaceFile creates the
// missing directories of file.
func replaceFile(file string, text []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".next-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // after the rename, Remove fails, because the temporary file does not exist any more
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// syncDir waits until the changed entries of a directory are on disk. Without syncDir, a
// removed declaration could exist again after a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
