package store

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// leftoverPrefix begins the names of the temporary files and directories of an edit. The
// sidecar ignores these names. If an edit is killed, its temporary files can remain. The sidecar and
// later edits of the same store remove them, because they can contain a secret.
const leftoverPrefix = ".keyhatch-edit-"

// An editDir is the open directory of a store, of a bundle, or of a temporary bundle. Only errors use
// its path. An edit accesses each file by its name in an open directory and not by a path, because the
// owner of a store can replace a directory by a symbolic link at any time. If root edits the store, the
// edit must not change files in the target of this link.
type editDir struct{ *os.File }

// openEditDir opens the directory of a store. flags can contain O_PATH, which needs no permission to
// read the directory.
func openEditDir(path string, flags int) (editDir, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|flags, 0)
	return editDir{f}, err
}

// openDir opens a directory in d. If the directory is a symbolic link, openDir returns ENOTDIR.
func (d editDir) openDir(name string) (editDir, error) {
	fd, err := unix.Openat(d.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return editDir{}, d.pathError("openat", name, err)
	}
	return editDir{os.NewFile(uintptr(fd), filepath.Join(d.Name(), name))}, nil
}

// errNotNew means that another user has put a directory in the place of the directory that an edit has
// created.
var errNotNew = errors.New("another program has replaced the new directory")

// openNewDir opens a directory that this process has just created in d. If root edits the store, the owner
// of the store can replace the new directory before root opens it. So openNewDir returns errNotNew if the
// directory is not empty (see also setOwner).
func (d editDir) openNewDir(name string) (editDir, error) {
	dir, err := d.openDir(name)
	if err != nil {
		return editDir{}, err
	}
	names, err := dir.names()
	if err == nil && len(names) > 0 {
		err = d.pathError("openat", name, errNotNew)
	}
	if err != nil {
		dir.Close()
		return editDir{}, err
	}
	return dir, nil
}

func (d editDir) fd() int { return int(d.Fd()) }

// pathError returns err with the path of a name in d, or nil if err is nil.
func (d editDir) pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: filepath.Join(d.Name(), name), Err: err}
}

// mode returns the type and the permissions of the file or directory name in d. flags can be
// AT_SYMLINK_NOFOLLOW.
func (d editDir) mode(name string, flags int) (mode uint32, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(d.fd(), name, &st, flags)
	return st.Mode, d.pathError("fstatat", name, err)
}

func (d editDir) hasType(name string, flags int, fileType uint32) bool {
	mode, err := d.mode(name, flags)
	return err == nil && mode&unix.S_IFMT == fileType
}

func (d editDir) isDir(name string) bool { return d.hasType(name, 0, unix.S_IFDIR) }

func (d editDir) isFile(name string) bool {
	mode, err := d.mode(name, 0)
	return err == nil && mode&unix.S_IFMT != unix.S_IFDIR
}

func (d editDir) isLink(name string) bool {
	return d.hasType(name, unix.AT_SYMLINK_NOFOLLOW, unix.S_IFLNK)
}

// isMount reports whether something is mounted over the entry name of d.
func (d editDir) isMount(name string) bool { return isMountIn(d.fd(), name, "") }

// isMountPoint reports whether something is mounted over the directory or the file at path.
func isMountPoint(path string) bool { return isMountIn(unix.AT_FDCWD, path, filepath.Dir(path)) }

// isMountIn reports whether something is mounted over the entry name of the directory dirfd. parent is
// the path of the entry's directory from dirfd, or "". Before Linux 5.8, isMountIn detects only a mounted
// directory of another file system.
func isMountIn(dirfd int, name, parent string) bool {
	var stat, parentStat unix.Statx_t
	if unix.Statx(dirfd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &stat) != nil {
		return false
	}
	if stat.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	}
	// Compare only directories. On an overlay file system, the device number of a file differs from
	// that of its directory.
	return stat.Mode&unix.S_IFMT == unix.S_IFDIR && unix.Statx(dirfd, parent, unix.AT_EMPTY_PATH, unix.STATX_TYPE, &parentStat) == nil &&
		(stat.Dev_major != parentStat.Dev_major || stat.Dev_minor != parentStat.Dev_minor)
}

// names returns the sorted names in d.
func (d editDir) names() ([]string, error) {
	dir, err := d.openDir(".") // reading d itself would change the position in d
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// rename moves the file or directory name from d to dir, where its name is newName. If dir contains a
// file with this name, rename replaces the file.
func (d editDir) rename(name string, dir editDir, newName string) error {
	return dir.pathError("renameat", newName, unix.Renameat(d.fd(), name, dir.fd(), newName))
}

// removeFile removes a file in d, for example a symbolic link or a FIFO.
func (d editDir) removeFile(name string) error {
	return d.pathError("unlinkat", name, unix.Unlinkat(d.fd(), name, 0))
}

// removeDir removes an empty directory in d.
func (d editDir) removeDir(name string) error {
	return d.pathError("unlinkat", name, unix.Unlinkat(d.fd(), name, unix.AT_REMOVEDIR))
}

// makeTempDir creates a temporary directory in d.
func (d editDir) makeTempDir() (editDir, string, error) {
	name := leftoverPrefix + rand.Text()
	if err := unix.Mkdirat(d.fd(), name, 0o700); err != nil {
		return editDir{}, "", d.pathError("mkdirat", name, err)
	}
	dir, err := d.openNewDir(name)
	if err != nil {
		d.removeDir(name)
	}
	return dir, name, err
}
