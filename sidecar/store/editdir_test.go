package store

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenDirRefusesLink checks that an edit cannot open a directory through a symbolic link, because
// another user can replace the directory by the link after the edit has checked its type.
func TestOpenDirRefusesLink(t *testing.T) {
	root, err := openEditDir(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := os.Symlink(t.TempDir(), root.Name()+"/aws"); err != nil {
		t.Fatal(err)
	}
	if _, err := root.openDir("aws"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("openDir returned the error %v; want %v", err, unix.ENOTDIR)
	}
}
