package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// ErrRuntimeDirBusy says that another daemon owns the runtime directory.
var ErrRuntimeDirBusy = errors.New("another keyhatchd is serving here")

// A runtimeDir is the directory that holds the sockets. Whoever holds it owns
// every socket in it, so a socket file found there is a leftover.
type runtimeDir struct {
	path     string
	lock     *os.File // the directory itself, under flock
	adminGID int      // owns the admin socket; -1: the process's group
}

// openRuntimeDir makes the directory where it is not there, and takes it. The
// lock is on the directory itself and lasts as long as the process, so it
// needs no file and cannot be left behind.
func openRuntimeDir(path string, adminGID int) (*runtimeDir, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("the runtime directory %s is not an absolute path", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	d := &runtimeDir{path: path, adminGID: adminGID}
	// Any user may walk in; what is inside has modes of its own.
	if err := d.mkdir("", 0o755, -1); err != nil {
		return nil, err
	}
	lock, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("%w: %s is locked", ErrRuntimeDirBusy, path)
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	d.lock = lock
	err = d.mkdir("admin", 0o750, adminGID)
	if err == nil {
		err = d.mkdir("projects", 0o700, -1)
	}
	if err == nil {
		err = d.mkdir("devcontainers", 0o700, -1)
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *runtimeDir) close() { d.lock.Close() }

func (d *runtimeDir) adminSocket() string { return filepath.Join(d.path, "admin", "admin.sock") }

func (d *runtimeDir) projectSocket(name schema.ProjectName) string {
	return filepath.Join(d.path, "projects", string(name), "broker.sock")
}

// mkdir makes a directory with this very mode, whatever the umask, or sees to
// it that one that is there has it and is ours.
func (d *runtimeDir) mkdir(name string, mode fs.FileMode, gid int) error {
	path := filepath.Join(d.path, name)
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("looking at %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%s is not a directory", path)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to uid %d, not to the broker", path, st.Uid)
	}
	if gid >= 0 && int(st.Gid) != gid {
		if err := os.Lchown(path, -1, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

func (d *runtimeDir) bindAdmin() (*net.UnixListener, error) {
	return bind(d.adminSocket(), 0o660, d.adminGID)
}

// bindProject makes the project's directory, which is then kept for good: a
// container that has it mounted would hold on to a deleted one.
func (d *runtimeDir) bindProject(name schema.ProjectName) (*net.UnixListener, error) {
	if err := d.mkdir(filepath.Join("projects", string(name)), 0o755, -1); err != nil {
		return nil, err
	}
	// Any uid may connect, because only the right container, and root, can
	// reach the directory.
	return bind(d.projectSocket(name), 0o666, -1)
}

// link gives the project's directory other names, which a mount can be told
// before anybody knows the project's. One that is another project's is taken
// over: a dev container's number is that of one folder.
func (d *runtimeDir) link(name schema.ProjectName, ids []schema.DevcontainerID) error {
	target := filepath.Join("..", "projects", string(name))
	for _, id := range ids {
		path := filepath.Join(d.path, "devcontainers", string(id))
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(target, path); err != nil {
			return err
		}
	}
	return nil
}

// unlink removes the links that lead to the project.
func (d *runtimeDir) unlink(name schema.ProjectName, ids []schema.DevcontainerID) {
	for _, id := range ids {
		path := filepath.Join(d.path, "devcontainers", string(id))
		if target, err := os.Readlink(path); err == nil && filepath.Base(target) == string(name) {
			os.Remove(path)
		}
	}
}

// bind makes a listening socket that has its final mode from the moment it can
// be connected to. It must be called by the holder of the runtime directory.
func bind(path string, mode uint32, gid int) (*net.UnixListener, error) {
	// unix(7): sun_path has 108 bytes, the last of them a NUL.
	if len(path) > 107 {
		return nil, fmt.Errorf("the socket's path %s has %d bytes and the system allows 107: choose a shorter runtime directory", path, len(path))
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("making a socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	// The mode given to the descriptor, less the umask, is what bind gives the
	// file: never more than wanted, even for a moment. The umask itself is the
	// process's and not ours to change. Nobody can connect before listen.
	if err := unix.Fchmod(fd, mode); err != nil {
		return nil, fmt.Errorf("setting the mode of %s: %w", path, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("binding %s: %w", path, err)
	}
	listener, err := listen(fd, file, path, mode, gid)
	if err != nil {
		os.Remove(path)
	}
	return listener, err
}

func listen(fd int, file *os.File, path string, mode uint32, gid int) (*net.UnixListener, error) {
	if gid >= 0 {
		if err := os.Lchown(path, -1, gid); err != nil {
			return nil, err
		}
	}
	if err := chmodSocket(path, mode); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	// A listener made from a file does not remove its path when it is closed.
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// chmodSocket gives a socket its mode, and nothing else one. A container that has
// a project's directory mounted can put a link in the socket's place, to whatever
// the broker may change, at the very moment between its bind and this.
func chmodSocket(path string, mode uint32) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("looking at %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s is no longer the socket that was bound there", path)
	}
	// fchmod takes no such descriptor, and fchmodat could not be told to follow
	// no link before Linux 6.6; this is the way of fchmodat(3).
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode); err != nil {
		return fmt.Errorf("setting the mode of %s: %w", path, err)
	}
	return nil
}

// removeStale removes a socket nobody listens on. Under the lock there can be
// no other daemon's, but a socket that a service manager holds for us has no
// lock, and must not be taken from it.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is in the way and is no socket: move it elsewhere", path)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("making a socket: %w", err)
	}
	defer unix.Close(fd)
	// Refused means dead. A full backlog is EAGAIN, and alive.
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != unix.ECONNREFUSED {
		return fmt.Errorf("%s: a process that does not hold the runtime directory listens there", path)
	}
	return os.Remove(path)
}
