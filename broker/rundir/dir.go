// Package rundir manages the runtime directory: its lock, the directories in it,
// the sockets with their exact modes, and the links for dev containers.
//
//	DIR/admin/admin.sock                mode 0660
//	DIR/projects/.DIGEST/broker.sock    mode 0666, in a directory that a container mounts
//	DIR/projects/NAME                   a link to .DIGEST
//	DIR/devcontainers/ID                a link to ../projects/.DIGEST
//	DIR/lock                            mode 0600
//
// DIGEST is computed from the path of the project, and not from its name. Otherwise, if a
// name is used again for another project, a container that still mounts the directory of
// the first project could fetch the secrets of the second project.
//
// A container's root can change the directory that is mounted there, so the package does
// not trust its content and follows no link in it.
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

// Dir is the runtime directory. At most one broker holds its lock, so if a socket
// file already exists when the broker starts, no process is serving it.
type Dir struct {
	path     string
	lock     *os.File
	adminGID int // group of the admin socket; -1: the group of the process

	mu         sync.Mutex
	operations map[string]chan struct{} // guarded by mu; by project path; see inDirectory
}

// entryNames are the names that can be in a runtime directory.
var entryNames = []string{"admin", "devcontainers", "lock", "projects"}

// Open locks the runtime directory, which it creates if necessary. The path must
// be absolute. adminGID is the group that owns the admin socket; with -1 it keeps
// the group of the process. The lock ends with the process. If another process
// holds the lock, the error is ErrBusy.
func Open(path string, adminGID int) (*Dir, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("the path of the runtime directory must be absolute: %s", path)
	}
	d := &Dir{path: path, adminGID: adminGID}
	if err := d.createOrCheck(); err != nil {
		return nil, err
	}
	// The broker locks a file that only its own user can open. Any user could lock the
	// directory itself, and keep the broker from starting.
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

// createOrCheck creates the directory. It accepts an existing directory only if no
// other user can write to it, and if it contains nothing else. It does not change an
// existing directory, which could be /tmp or a home directory by mistake.
func (d *Dir) createOrCheck() error {
	if err := os.MkdirAll(filepath.Dir(d.path), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(d.path, 0o755)
	if err == nil {
		// Every user may enter the directory; the directories in it have modes of
		// their own.
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

// checkOwner checks that a path is a directory of the broker's user.
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

// Close releases the lock.
func (d *Dir) Close() { d.lock.Close() }

// ensureDir creates a directory with exactly this mode, ignoring the umask. If it
// exists already, it must belong to the broker, and gets the mode and the group.
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
