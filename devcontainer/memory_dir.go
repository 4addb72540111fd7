package devcontainer

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoMemoryDir says that there is no directory in memory that is ours alone,
// so that a file would reach a disk or a stranger.
var ErrNoMemoryDir = errors.New("no place in memory for secret files")

// MemoryDir is where this user's files are.
func MemoryDir() string { return fmt.Sprintf("/dev/shm/keyhatch-%d", os.Geteuid()) }

// verifyMemoryDir sees that the directory is in memory and ours alone: its name is no
// secret, so a stranger may have been there before us.
func verifyMemoryDir(dir string) error {
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: %s is not a directory of ours: %w", ErrNoMemoryDir, dir, err)
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	var system unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &stat), unix.Fstatfs(fd, &system)); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNoMemoryDir, dir, err)
	}
	switch {
	case int64(system.Type) != unix.TMPFS_MAGIC:
		return fmt.Errorf("%w: %s is not a tmpfs", ErrNoMemoryDir, dir)
	case stat.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("%w: %s belongs to uid %d", ErrNoMemoryDir, dir, stat.Uid)
	case stat.Mode&0o7777 != 0o700:
		return fmt.Errorf("%w: %s has mode %#o and must have 0700", ErrNoMemoryDir, dir, stat.Mode&0o7777)
	}
	return nil
}

// inMemory keeps a directory from being made where it would have to be refused.
func inMemory(dir string) error {
	var system unix.Statfs_t
	if err := unix.Statfs(dir, &system); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNoMemoryDir, dir, err)
	}
	if int64(system.Type) != unix.TMPFS_MAGIC {
		return fmt.Errorf("%w: %s is not a tmpfs", ErrNoMemoryDir, dir)
	}
	return nil
}
