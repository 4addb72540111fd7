// Package rundir manages the runtime directory of the broker. It creates the lock file, the
// directories, the sockets with their exact modes, and the links.
//
//	DIR/admin/admin.sock                mode 0660
//	DIR/projects/.DIGEST/broker.sock    mode 0666, in a directory that a container mounts
//	DIR/projects/NAME                   a link to .DIGEST
//	DIR/devcontainers/ID                a link to ../projects/.DIGEST, or to no directory if
//	                                    the ID is only reserved
//	DIR/lock                            mode 0600
//
// DIGEST is computed from the project's path. If DIGEST were computed from the project's
// name, a name could be used again for a second project. A container that still mounts the
// directory of the first project could then fetch the secrets of the second project.
//
// The root user of a container can change the directory that the container mounts. So the
// package does not trust the content of such a directory, and follows no link in it.
//
// A process in the container can also make the kernel lock the directory for as long as the
// process wants. To do this, the process lists the directory, but never provides the memory pages
// into which the kernel must write the list. An operation that creates or removes a file in the
// directory then waits for the lock, and not even SIGKILL ends this wait. If a thread of the
// broker waited for the lock, the broker could not end. The lock file, the listeners, and the
// memory with the secrets would stay in use. So the broker itself creates, removes, and lists no
// file in such a directory. Child processes do this work for the broker. They have no secrets and
// no listeners. If a child process waits too long, the broker kills the child process and does not
// wait for its end.
//
// A container engine can create a directory at the place of a link. The package renames such
// a directory to .NAME-RANDOM and does not remove it. Removing it could wait for a lock that a
// container holds, and the kernel would also lock the parent directory during this wait.
package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrBusy means that another broker holds the lock of the runtime directory.
var ErrBusy = errors.New("another keyhatchd is already running")

// Dir is the runtime directory. A broker locks a file in the directory before it creates
// sockets, and only one broker can hold this lock. So if a broker that holds the lock finds a
// socket file, no other broker listens on that socket.
type Dir struct {
	path     string
	lock     *os.File
	adminGID int // the group of the admin socket; -1 means the group of the process
	children *children
	files    socketFiles

	devcontainers devcontainerIndex
}

// entryNames are the names of all entries that the broker creates in the runtime directory.
var entryNames = []string{"admin", "devcontainers", "lock", "projects"}

// Open creates the runtime directory if necessary, and locks the file DIR/lock. The path must be
// absolute. adminGID is the group that owns the admin socket. -1 means the group of the process.
// The kernel releases the lock when the process ends. If another process has locked this file,
// the error wraps ErrBusy. Open also refuses an existing directory that may not belong to
// keyhatch (see createOrCheck).
func Open(path string, adminGID int) (*Dir, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("the path of the runtime directory must be absolute: %s", path)
	}
	d := &Dir{path: path, adminGID: adminGID, children: newChildren(path)}
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
	if resolved, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", lock.Fd())); err == nil {
		d.files.root = strings.TrimSuffix(resolved, "lock")
	}
	err = ensureDir(filepath.Join(path, "admin"), 0o750, adminGID)
	if err == nil {
		err = ensureDir(filepath.Join(path, "projects"), 0o700, -1)
	}
	if err == nil {
		err = ensureDir(filepath.Join(path, "devcontainers"), 0o700, -1)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// createOrCheck creates the runtime directory. It accepts an existing directory only if the
// directory belongs to the broker's user, if no other user can write to the directory, and if
// each name in the directory is in entryNames. It does not change an existing directory, because
// the operator could have chosen /tmp or a home directory by mistake.
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
	st, err := checkOwner(d.path)
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

// Close unlocks the runtime directory, ends the idle child process, and closes the open file
// descriptors of the socket files. It removes no file.
func (d *Dir) Close() {
	d.children.endIdle()
	d.files.close()
	d.lock.Close()
}

// BindAdmin creates the admin socket, and listens on it. It replaces a socket file on which no
// process listens. It fails if a process listens on the socket file, or if another kind of file
// exists at the path of the admin socket.
func (d *Dir) BindAdmin() (*net.UnixListener, error) {
	path := filepath.Join(d.path, "admin", "admin.sock")
	if err := removeStaleSocket(path); err != nil {
		return nil, err
	}
	listener, err := listenUnix(path, 0o660, d.adminGID)
	return listener, explainFull(err, filepath.Join(d.path, "projects"))
}
