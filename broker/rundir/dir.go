// Package rundir manages the runtime directory: its lock, the directories in it,
// the sockets with their exact modes, and the links for dev containers.
//
//	DIR/admin/admin.sock             mode 0660
//	DIR/projects/NAME/broker.sock    mode 0666, in a directory that a container mounts
//	DIR/devcontainers/ID             a link to ../projects/NAME
//	DIR/lock                         mode 0600
//
// A project's directory is mounted into a container whose root can change it, so
// the package does not trust its content and follows no link in it.
package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/keyhatch/keyhatch/schema"
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

// ProjectSocket returns the path of a project's socket.
func (d *Dir) ProjectSocket(name schema.ProjectName) string {
	return filepath.Join(d.path, "projects", string(name), "broker.sock")
}

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

// BindProject creates a project's socket and its directory. The directory is
// never removed: a container that has it mounted would keep the deleted one.
func (d *Dir) BindProject(name schema.ProjectName) (*net.UnixListener, error) {
	if err := d.ensureDir(filepath.Join("projects", string(name)), 0o755, -1); err != nil {
		return nil, err
	}
	// A file here is a leftover, or the project's container created it. It may even be a
	// socket on which a process of the container listens.
	path := d.ProjectSocket(name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot replace %s: %w", path, err)
	}
	// Any uid may connect, because only root and the project's container can
	// reach the directory.
	return d.listen(path, 0o666, -1)
}

func (d *Dir) listen(path string, mode uint32, gid int) (*net.UnixListener, error) {
	listener, err := listenUnix(path, mode, gid)
	if errors.Is(err, unix.ENOSPC) {
		return nil, fmt.Errorf("%w: a container may have filled the file system: remove files in %s", err, filepath.Join(d.path, "projects"))
	}
	return listener, err
}

// A SocketID identifies a socket file, even if another file has its path. The zero
// SocketID is that of no file.
type SocketID struct{ device, inode uint64 }

// ProjectSocketID returns the identity of the file at the path of a project's socket.
func (d *Dir) ProjectSocketID(name schema.ProjectName) SocketID {
	var st unix.Stat_t
	if err := unix.Lstat(d.ProjectSocket(name), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return SocketID{}
	}
	return SocketID{st.Dev, st.Ino}
}

// IsReachable reports whether clients that connect to a project's socket reach the
// listener. A container can replace the socket file while no broker runs. The check
// connects to the socket, so the listener accepts a connection that is closed already.
func (d *Dir) IsReachable(name schema.ProjectName, listener *net.UnixListener) bool {
	if d.ProjectSocketID(name) == (SocketID{}) {
		return false // connecting would follow a symlink
	}
	want, err := peerCredentials(listener)
	if err != nil {
		return false
	}
	client, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: d.ProjectSocket(name), Net: "unix"})
	if err != nil {
		return false
	}
	defer client.Close()
	got, err := peerCredentials(client)
	return err == nil && got == want
}

// peerCredentials returns the credentials of the process that called listen(2), for a
// listener and for its clients (SO_PEERCRED, unix(7)).
func peerCredentials(socket syscall.Conn) (credentials unix.Ucred, err error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return credentials, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		var c *unix.Ucred
		if c, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			credentials = *c
		}
	})
	return credentials, errors.Join(err, controlErr)
}

// Link gives a project's directory additional names, so that a dev container's
// mount can name the directory before the project's name is known. It replaces a
// link of another project: a dev container's id belongs to exactly one folder.
func (d *Dir) Link(name schema.ProjectName, ids []schema.DevcontainerID) error {
	target := filepath.Join("..", "projects", string(name))
	for _, id := range ids {
		path := filepath.Join(d.path, "devcontainers", string(id))
		if current, err := os.Readlink(path); err == nil && current == target {
			continue // a restart must not need space
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(target, path); err != nil {
			return err
		}
	}
	return nil
}

// Unlink removes those of the links that lead to the project.
func (d *Dir) Unlink(name schema.ProjectName, ids []schema.DevcontainerID) {
	for _, id := range ids {
		path := filepath.Join(d.path, "devcontainers", string(id))
		if target, err := os.Readlink(path); err == nil && filepath.Base(target) == string(name) {
			os.Remove(path)
		}
	}
}
