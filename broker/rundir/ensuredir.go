package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ensureDir creates a directory with exactly the given mode, whatever the umask is. If the
// directory already exists, it must belong to the broker's user, and ensureDir sets its mode.
// ensureDir also sets the group of the directory, unless gid is -1.
func ensureDir(path string, mode fs.FileMode, gid int) error {
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := checkOwner(path)
	if err != nil {
		return err
	}
	if gid >= 0 && int(st.Gid) != gid {
		if err := os.Lchown(path, -1, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// checkOwner returns an error if there is no directory at path, or if the directory does not
// belong to the broker's user. It does not follow a symlink at path.
func checkOwner(path string) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return st, fmt.Errorf("checking %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return st, fmt.Errorf("%s is not a directory", path)
	}
	if int(st.Uid) != os.Geteuid() {
		return st, fmt.Errorf("%s belongs to uid %d, but must belong to the broker's user", path, st.Uid)
	}
	return st, nil
}
