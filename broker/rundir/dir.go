// Package rundir manages the runtime directory of the broker. It creates the lock file, the
// directories, the sockets with their exact modes, and the links.
//
//	DIR/admin/admin.sock                mode 0660
//	DIR/projects/.DIGEST/broker.sock    mode 0666, in a directory that a container mounts
//	DIR/projects/NAME                   a link to .DIGEST
//	DIR/devcontainers/ID                a link to ../projects/.DIGEST
//	DIR/lock                            mode 0600
//
// DIGEST is computed from the project's path. If DIGEST were computed from the project's
// name, a name could be used again for a second project. A container that still mounts the
// directory of the first project could then fetch the secrets of the second project.
//
// The root user of a container can change the directory that the container mounts. So the
// package does not trust the content of such a directory, and follows no link in it.
package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrBusy means that another broker holds the lock of the runtime directory.
var ErrBusy = errors.New("another keyhatchd is already running")

// Dir is the runtime directory. A broker locks the directory before it creates sockets, and
// only one broker can hold the lock. So if a broker that holds the lock finds a socket file,
// no other broker listens on that socket.
type Dir struct {
	path     string
	lock     *os.File
	adminGID int // the group of the admin socket; -1 means the group of the process

	mu         sync.Mutex
	operations map[string]chan struct{} // guarded by mu; see busy
}

// entryNames are the names of all entries that a runtime directory can contain.
var entryNames = []string{"admin", "devcontainers", "lock", "projects"}

// Open creates the runtime directory if necessary, and locks it. The path must be absolute.
// adminGID is the group that owns the admin socket. -1 means the group of the process. The
// kernel releases the lock when the process ends. If another process has locked the
// directory, the error is ErrBusy.
func Open(path string, adminGID int) (*Dir, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("the path of the runtime directory must be absolute: %s", path)
	}
	d := &Dir{path: path, adminGID: adminGID}
	if err := d.createOrCheck(); err != nil {
		return nil, err
	}
	// Lock a file that only the broker's user can open. If the broker locked the directory
	// itself, any other user could lock the directory first. The broker could then not start.
	lockPath := filepath.Join(path, "lock")
	lock, err := os.OpenFile(lockPath, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("%w: %s is locked", ErrBusy, path)
		}
		return nil, fmt.Errorf("locking %s: %w", lockPath, err)
	}
	d.lock = lock
	err = d.ensureDir("admin", 0o750, adminGID)
	if err == nil {
		err = d.ensureDir("projects", 0o700, -1)
	}
	if err == nil {
		err = d.ensureDir("devcontainers", 0o700, -1)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// createOrCheck creates the runtime directory. It accepts an existing directory only if no
// other user can write to it, and if it contains only files of keyhatch. It does not change
// an existing directory, because the operator could have chosen /tmp or a home directory by
// mistake.
func (d *Dir) createOrCheck() error {
	if err := os.MkdirAll(filepath.Dir(d.path), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(d.path, 0o755)
	if err == nil {
		// Every user may enter the runtime directory. The directories in it have stricter
		// modes.
		return os.Chmod(d.path, 0o755)
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := d.checkOwner(d.path)
	if err != nil {
		return err
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("other users can write to %s: choose a directory that only keyhatch uses, for example %s", d.path, filepath.Join(d.path, "keyhatch"))
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !slices.Contains(entryNames, entry.Name()) {
			return fmt.Errorf("cannot use %s as the runtime directory, because it contains %s, which does not belong to keyhatch: choose a directory that only keyhatch uses, for example %s", d.path, entry.Name(), filepath.Join(d.path, "keyhatch"))
		}
	}
	return nil
}

// checkOwner checks that a path is a directory that belongs to the broker's user.
func (d *Dir) checkOwner(path string) (unix.Stat_t, error) {
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

// Close unlocks the runtime directory.
func (d *Dir) Close() { d.lock.Close() }

// ensureDir creates a directory in the runtime directory with exactly the given mode, and
// ignores the umask. An existing directory must belong to the broker's user, and ensureDir
// changes its mode. ensureDir also sets the group of the directory, unless gid is -1.
func (d *Dir) ensureDir(name string, mode fs.FileMode, gid int) error {
	path := filepath.Join(d.path, name)
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := d.checkOwner(path)
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

// BindAdmin creates the admin socket.
func (d *Dir) BindAdmin() (*net.UnixListener, error) {
	path := filepath.Join(d.path, "admin", "admin.sock")
	if err := removeStaleSocket(path); err != nil {
		return nil, err
	}
	return d.listen(path, 0o660, d.adminGID)
}

func (d *Dir) listen(path string, mode uint32, gid int) (*net.UnixListener, error) {
	listener, err := listenUnix(path, mode, gid)
	if errors.Is(err, unix.ENOSPC) {
		return nil, fmt.Errorf("%w: a container may have filled the file system: remove files in %s", err, filepath.Join(d.path, "projects"))
	}
	return listener, err
}
