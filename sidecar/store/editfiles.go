package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// writeTemp writes value to a new temporary file in dir. If value is empty, writeTemp writes a
// newline. For replaced and parent, see setOwner.
//
// If the file system supports O_TMPFILE, the file gets a name only after it is complete. So a
// process that is killed leaves no part of the value in the store.
func writeTemp(dir string, value []byte, replaced, parent string) (path string, err error) {
	if len(value) == 0 {
		value = []byte("\n")
	}
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_WRONLY, 0o600)
	hasName := err != nil
	if hasName {
		f, err = os.CreateTemp(dir, leftoverPrefix)
	}
	if err != nil {
		return "", err
	}
	if err = setOwner(f, replaced, parent); err == nil {
		_, err = f.Write(value)
	}
	if err == nil {
		err = f.Sync()
	}
	path = f.Name()
	if err == nil && !hasName {
		path = filepath.Join(dir, leftoverPrefix+rand.Text())
		// AT_EMPTY_PATH needs a capability, but the link in /proc does not (open(2), O_TMPFILE).
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprint("/proc/self/fd/", f.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
		if hasName = err == nil; !hasName {
			err = &fs.PathError{Op: "linkat", Path: path, Err: err}
		}
	}
	if err = errors.Join(err, f.Close()); err != nil && hasName {
		os.Remove(path)
	}
	return path, err
}

// makeDir creates a directory with mode 0700 if the directory does not exist.
func makeDir(path string) (created bool, err error) {
	if err := os.Mkdir(path, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
		return false, err
	}
	if err := setDirOwner(path, "", filepath.Dir(path)); err != nil {
		os.Remove(path)
		return false, err
	}
	return true, nil
}

// setOwner gives a new file or directory the owner, the group, and the permissions of the path
// that it will replace. If that path does not exist or is a symbolic link, and if this process
// is root, the new file gets the owner and the group of the directory parent. Otherwise the
// owner of a store could not read the files that root writes.
func setOwner(f *os.File, replaced, parent string) error {
	path := replaced
	old, err := os.Lstat(path)
	exists := err == nil && old.Mode().Type() != fs.ModeSymlink
	if !exists {
		if os.Geteuid() != 0 {
			return nil
		}
		path = parent
		if old, err = os.Stat(path); err != nil {
			return err
		}
	}
	current, err := f.Stat()
	if err != nil {
		return err
	}
	want, have := old.Sys().(*syscall.Stat_t), current.Sys().(*syscall.Stat_t)
	if want.Uid != have.Uid || want.Gid != have.Gid {
		if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil {
			return fmt.Errorf("%s belongs to the uid %d and the gid %d, and the new file cannot have this owner and group: %w", path, want.Uid, want.Gid, errors.Unwrap(err))
		}
	}
	if exists {
		return f.Chmod(old.Mode().Perm())
	}
	return nil
}

// setDirOwner calls setOwner for a new directory. The owner of the store can replace the
// directory at any time, so setDirOwner does not follow a link.
func setDirOwner(path, replaced, parent string) error {
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return setOwner(dir, replaced, parent)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
