package main

import (
	"os"
	"path/filepath"
)

// replaceFile writes a file in one step, by renaming a temporary file. A reader sees
// the old text or the new text, never a part of one.
func replaceFile(file string, text []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".next-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone, once it is renamed
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
	return os.Rename(tmp.Name(), file)
}
