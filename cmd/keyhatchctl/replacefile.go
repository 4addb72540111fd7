package main

import (
	"os"
	"path/filepath"
)

// replace writes a file in one step, by renaming a temporary file. A reader sees
// the old text or the new text, never a part of one.
func replace(file string, text []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(file), ".next-")
	if err != nil {
		return err
	}
	defer os.Remove(next.Name()) // gone, once it is renamed
	_, err = next.Write(text)
	if err == nil {
		err = next.Chmod(mode)
	}
	if err == nil {
		err = next.Sync()
	}
	if closeErr := next.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(next.Name(), file)
}
