package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// writeTemp writes value to a new temporary file in dir, and returns the name of the file. If value is
// empty, writeTemp writes a newline. For old, replaced, and parent, see setOwner.
//
// If the file system supports O_TMPFILE, the file gets a name only after it is complete. So a
// process that is killed leaves no part of the value in the store.
func writeTemp(dir editDir, value []byte, old editDir, replaced string, parent editDir) (name string, err error) {
	if len(value) == 0 {
		value = []byte("\n")
	}
	name = leftoverPrefix + rand.Text()
	fd, err := unix.Openat(dir.fd(), ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	hasName := err != nil
	if hasName {
		fd, err = unix.Openat(dir.fd(), name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	}
	if err != nil {
		return "", dir.pathError("openat", name, err)
	}
	f := os.NewFile(uintptr(fd), dir.Name()+"/"+name)
	if err = setOwner(f, old, replaced, parent); err == nil {
		_, err = f.Write(value)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil && !hasName {
		// AT_EMPTY_PATH needs a capability, but the link in /proc does not (open(2), O_TMPFILE).
		err = dir.pathError("linkat", name, unix.Linkat(unix.AT_FDCWD, descriptorPath(fd), dir.fd(), name, unix.AT_SYMLINK_FOLLOW))
		hasName = err == nil
	}
	if err = errors.Join(err, f.Close()); err != nil && hasName {
		dir.removeFile(name)
	}
	return name, err
}

// makeDir creates a directory with mode 0700 in d if the directory does not exist.
func (d editDir) makeDir(name string) (created bool, err error) {
	if err := unix.Mkdirat(d.fd(), name, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return false, nil
		}
		return false, d.pathError("mkdirat", name, err)
	}
	dir, err := d.openNewDir(name)
	if err == nil {
		err = setOwner(dir.File, editDir{}, "", d)
		dir.Close()
	}
	if err != nil {
		d.removeDir(name)
	}
	return err == nil, err
}

func descriptorPath(fd int) string { return fmt.Sprint("/proc/self/fd/", fd) }

// setOwner prepares the new file or directory f, which will replace the file or directory with the name
// replaced in old. f gets the owner, the group, the permissions, and the ACL of the old file. If there
// is no old file (replaced can be ""), or if it is a symbolic link, and if this process is root, f gets
// the owner and the group of the directory parent. Otherwise the owner of a store could not read the
// files that root writes.
func setOwner(f *os.File, old editDir, replaced string, parent editDir) error {
	var want, have unix.Stat_t
	source := -1 // the file that will be replaced
	if replaced != "" {
		fd, err := unix.Openat(old.fd(), replaced, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(fd)
			err = unix.Fstat(fd, &want)
		}
		if err != nil && err != unix.ENOENT {
			return old.pathError("openat", replaced, err)
		}
		if err == nil && want.Mode&unix.S_IFMT != unix.S_IFLNK {
			source = fd
		}
	}
	path := parent.Name()
	if source >= 0 {
		path = old.Name() + "/" + replaced
	} else {
		if os.Geteuid() != 0 {
			return nil
		}
		if err := unix.Fstat(parent.fd(), &want); err != nil {
			return parent.pathError("fstat", "", err)
		}
	}
	if err := unix.Fstat(int(f.Fd()), &have); err != nil {
		return err
	}
	isDir := have.Mode&unix.S_IFMT == unix.S_IFDIR
	if want.Uid != have.Uid || want.Gid != have.Gid {
		if isDir && int(have.Uid) != os.Geteuid() { // see openNewDir
			return &fs.PathError{Op: "fstat", Path: f.Name(), Err: errNotNew}
		}
		if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil {
			return fmt.Errorf("%s belongs to the uid %d and the gid %d, and the new file cannot have this owner and group: %w", path, want.Uid, want.Gid, errors.Unwrap(err))
		}
	}
	if source < 0 {
		return nil
	}
	names := []string{"system.posix_acl_access"}
	if isDir {
		names = append(names, "system.posix_acl_default")
	}
	for _, name := range names {
		if err := copyACL(f, source, name); err != nil {
			return fmt.Errorf("%s has an ACL, and the new file cannot have the same ACL: %w", path, err)
		}
	}
	mode := fs.FileMode(want.Mode & 0o777)
	if isDir {
		if want.Mode&unix.S_ISGID != 0 {
			mode |= fs.ModeSetgid
		}
		if want.Mode&unix.S_ISVTX != 0 {
			mode |= fs.ModeSticky
		}
	}
	return f.Chmod(mode)
}

// maxACL is the maximum size of an extended attribute.
const maxACL = 1 << 16

// copyACL copies an ACL, which is an extended attribute, from the file descriptor source to f. source
// can be opened with O_PATH. If source has no ACL, copyACL removes the ACL that f has inherited from
// its directory. Otherwise the users in this ACL would get permissions from Chmod, because for a file
// with an ACL, Chmod sets the mask of the ACL and not the permissions of the group (see acl(5)).
func copyACL(f *os.File, source int, name string) error {
	acl := make([]byte, maxACL)
	n, err := unix.Getxattr(descriptorPath(source), name, acl)
	switch err {
	case nil:
		return unix.Fsetxattr(int(f.Fd()), name, acl[:n], 0)
	case unix.EOPNOTSUPP:
		return nil
	case unix.ENODATA:
		if err := unix.Fremovexattr(int(f.Fd()), name); err != unix.ENODATA && err != unix.EOPNOTSUPP {
			return err
		}
		return nil
	}
	return err
}
