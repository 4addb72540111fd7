package devcontainer

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoMemoryDir means that the directory for secret files is not in memory, or that another
// user could list or change it. In such a directory, a secret file could be written to a disk,
// or another user could replace the file.
var ErrNoMemoryDir = errors.New("cannot use the directory for secret files, which must be private and on a memory file system (tmpfs)")

// MemoryDir returns the directory for the rendered files of this user.
func MemoryDir() string { return fmt.Sprintf("/dev/shm/keyhatch-%d", os.Geteuid()) }

// verifyMemoryDir checks that the directory is in memory and that only this user can list and
// change it. Other users may have the execute permission for the directory, because a file may have
// a mode that lets them read the file. The check is necessary because the name of the directory is
// predictable, so another user could have created the directory.
func verifyMemoryDir(dir string) error {
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: cannot open %s as a directory: %w", ErrNoMemoryDir, dir, err)
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	var statfs unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &stat), unix.Fstatfs(fd, &statfs)); err != nil {
		return fmt.Errorf("%w: cannot examine %s: %w", ErrNoMemoryDir, dir, err)
	}
	switch {
	case int64(statfs.Type) != unix.TMPFS_MAGIC:
		return fmt.Errorf("%w: %s is not on a tmpfs", ErrNoMemoryDir, dir)
	case stat.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("%w: %s belongs to uid %d, but must belong to uid %d", ErrNoMemoryDir, dir, stat.Uid, os.Geteuid())
	case stat.Mode&0o7766 != 0o700:
		return fmt.Errorf("%w: %s has mode %#o, but must have mode 0700, 0701, 0710, or 0711", ErrNoMemoryDir, dir, stat.Mode&0o7777)
	}
	return nil
}

// checkTmpfs checks that dir is on a tmpfs. Without this check, makeDirs could create a
// directory on a disk before verifyMemoryDir refuses that directory.
func checkTmpfs(dir string) error {
	var statfs unix.Statfs_t
	if err := unix.Statfs(dir, &statfs); err != nil {
		return fmt.Errorf("%w: cannot examine %s: %w", ErrNoMemoryDir, dir, err)
	}
	if int64(statfs.Type) != unix.TMPFS_MAGIC {
		return fmt.Errorf("%w: %s is not on a tmpfs", ErrNoMemoryDir, dir)
	}
	return nil
}
