package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// An editDir is the open directory of a store, of a bundle, or of a temporary bundle. Its name is its
// path, which is only used in errors. An edit uses open directories and names in them, and no paths: the
// owner of a store can replace a directory by a symbolic link at any time, and an edit of root must not
// write to or delete files in the target of this link.
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

func (d editDir) fd() int { return int(d.Fd()) }

// pathError returns err with the path of a name in d, or nil if err is nil.
func (d editDir) pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: filepath.Join(d.Name(), name), Err: err}
}

// mode returns the type and the permissions of a name in d. flags can be AT_SYMLINK_NOFOLLOW.
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

// isMount reports whether a file system is mounted at a name in d. Before Linux 5.8, isMount only detects
// a directory of another file system.
func (d editDir) isMount(name string) bool {
	var stat, parent unix.Statx_t
	if unix.Statx(d.fd(), name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &stat) != nil {
		return false
	}
	if stat.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	}
	// An overlay file system has other device numbers for files than for directories.
	return stat.Mode&unix.S_IFMT == unix.S_IFDIR && unix.Statx(d.fd(), "", unix.AT_EMPTY_PATH, unix.STATX_TYPE, &parent) == nil &&
		(stat.Dev_major != parent.Dev_major || stat.Dev_minor != parent.Dev_minor)
}

// names returns the sorted names in d.
func (d editDir) names() ([]string, error) {
	dir, err := d.openDir(".") // the position of d itself must not change
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// rename renames a file or directory in d. It replaces a file with the name newName in dir.
func (d editDir) rename(name string, dir editDir, newName string) error {
	return dir.pathError("renameat", newName, unix.Renameat(d.fd(), name, dir.fd(), newName))
}

// removeFile removes a name in d that is not a directory.
func (d editDir) removeFile(name string) error {
	return d.pathError("unlinkat", name, unix.Unlinkat(d.fd(), name, 0))
}

// removeDir removes an empty directory in d.
func (d editDir) removeDir(name string) error {
	return d.pathError("unlinkat", name, unix.Unlinkat(d.fd(), name, unix.AT_REMOVEDIR))
}

// makeDir creates a directory with mode 0700 in d if the directory does not exist.
func (d editDir) makeDir(name string) (created bool, err error) {
	if err := unix.Mkdirat(d.fd(), name, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return false, nil
		}
		return false, d.pathError("mkdirat", name, err)
	}
	dir, err := d.openDir(name)
	if err == nil {
		err = setOwner(dir.File, editDir{}, "", d)
		dir.Close()
	}
	if err != nil {
		d.removeDir(name)
	}
	return err == nil, err
}

// makeTempDir creates a temporary directory in d.
func (d editDir) makeTempDir() (editDir, string, error) {
	name := leftoverPrefix + rand.Text()
	if err := unix.Mkdirat(d.fd(), name, 0o700); err != nil {
		return editDir{}, "", d.pathError("mkdirat", name, err)
	}
	dir, err := d.openDir(name)
	if err != nil {
		d.removeDir(name)
	}
	return dir, name, err
}

// A ForeignError means that an edit was refused because the directory of a bundle contains hidden files,
// directories, mounts, or other files that are not fields. The edit would delete them.
type ForeignError struct {
	Path  string   // of the directory
	names []string // in the directory
}

// maxListedForeign is the maximum number of names in the text of a ForeignError.
const maxListedForeign = 5

func (e *ForeignError) Error() string {
	text := strings.Join(e.names[:min(len(e.names), maxListedForeign)], ", ")
	if more := len(e.names) - maxListedForeign; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return fmt.Sprintf("%s contains files or directories that are not fields: %s", e.Path, text)
}

// checkOnlyFields returns a *ForeignError if the bundle d contains anything that is not a field. The
// temporary files of edits are ignored.
func (d editDir) checkOnlyFields() error {
	names, err := d.names()
	if err != nil {
		return err
	}
	var foreign []string
	for _, name := range names {
		isField := schema.ValidSecretName(name) && !isIgnored(name)
		switch {
		case d.isMount(name):
			foreign = append(foreign, name+" (a mount point)")
		case d.hasType(name, unix.AT_SYMLINK_NOFOLLOW, unix.S_IFDIR):
			foreign = append(foreign, name+"/")
		case !isField && !strings.HasPrefix(name, leftoverPrefix):
			foreign = append(foreign, name)
		}
	}
	if foreign != nil {
		return &ForeignError{d.Name(), foreign}
	}
	return nil
}

// maxTempDepth is the number of directories in the path from a store to a field in a temporary
// directory, which is .keyhatch-edit-XXX/bundle/FIELD.
const maxTempDepth = 2

// removeTemp removes a temporary file or directory of an edit from d. A directory can contain other
// directories down to the given depth. removeTemp removes only files that an edit can have moved there. It
// changes nothing in a directory that contains other files, and in other file systems.
func (d editDir) removeTemp(name string, depth int) error {
	if !d.hasType(name, unix.AT_SYMLINK_NOFOLLOW, unix.S_IFDIR) {
		if err := d.removeFile(name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if depth == 0 || d.isMount(name) {
		return &ForeignError{d.Name(), []string{name + "/"}}
	}
	dir, err := d.openDir(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.names()
	if err != nil {
		return err
	}
	if depth < maxTempDepth || !slices.Equal(names, []string{removedBundle}) {
		err = dir.checkOnlyFields()
	}
	for _, entry := range names {
		if err == nil {
			err = dir.removeTemp(entry, depth-1)
		}
	}
	if err == nil {
		err = d.removeDir(name)
	}
	return err
}
