package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
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

// TestOpenNewDirRefusesOtherDir checks that an edit does not use a directory with files that another user
// has put in the place of the directory that the edit has just created. Otherwise an edit of root would
// give this directory to the owner of the store.
func TestOpenNewDirRefusesOtherDir(t *testing.T) {
	root, err := openEditDir(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	writeAll(t, root.Name()+"/.hidden", "1")
	parent, err := openEditDir(filepath.Dir(root.Name()), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	if _, err := parent.openNewDir(filepath.Base(root.Name())); !errors.Is(err, errNotNew) {
		t.Errorf("openNewDir returned the error %v; want %v", err, errNotNew)
	}
}

// TestSetOwnerRefusesDirOfOtherUser checks that an edit of root does not give a directory of another user
// to the owner of the store.
func TestSetOwnerRefusesDirOfOtherUser(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "changing the owner of a file requires root")
	parent, err := openEditDir(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	if err := errors.Join(os.Mkdir(parent.Name()+"/other", 0o700), os.Chown(parent.Name()+"/other", 200, 200), os.Chown(parent.Name(), 100, 100)); err != nil {
		t.Fatal(err)
	}
	dir, err := parent.openNewDir("other")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := setOwner(dir.File, editDir{}, "", parent); !errors.Is(err, errNotNew) {
		t.Errorf("setOwner returned the error %v; want %v", err, errNotNew)
	}
}

// TestStoredSizesOpensOnlyFiles calls StoredSizes for a link to a FIFO. StoredSizes must not open the
// FIFO, because a link can also lead to a device, and some devices react when a process opens them.
func TestStoredSizesOpensOnlyFiles(t *testing.T) {
	dir := Dir{Path: t.TempDir()}
	fifo := t.TempDir() + "/fifo"
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Symlink(fifo, dir.Path+"/A")); err != nil {
		t.Fatal(err)
	}
	writeAll(t, dir.Path+"/B", "12\n")
	events, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(events)
	if _, err := unix.InotifyAddWatch(events, fifo, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	sizes := dir.StoredSizes([]string{"A", "B", "C"})
	if _, exists := sizes["C"]; sizes["A"] != UnknownSize || sizes["B"] != 2 || exists {
		t.Errorf("StoredSizes returned %v", sizes)
	}
	if n, err := unix.Read(events, make([]byte, 1000)); err != unix.EAGAIN {
		t.Errorf("StoredSizes has opened the FIFO: %d bytes, error %v", n, err)
	}
}
