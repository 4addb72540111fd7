package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the maximum length of a socket's path, in bytes. The field sun_path of
// the kernel has 108 bytes, and its last byte must be NUL (unix(7)).
const maxSocketPath = 107

func errTooLong(path string) error {
	return fmt.Errorf("the socket path %s has %d bytes, but the limit is %d: choose a shorter path for the runtime directory, or a shorter project name if this path contains the name", path, len(path), maxSocketPath)
}

// projectSocketMode allows all uids to connect to a project's socket. But the mode of the
// directory DIR/projects allows only root, the broker's user, and the containers that mount the
// directory of the socket to reach the socket file.
const projectSocketMode = 0o666

// explainFull adds an explanation to err if err means that the file system is full. projects is
// the directory that contains the directories of the projects.
func explainFull(err error, projects string) error {
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: a container may have filled the file system: remove files in %s", err, projects)
	}
	return err
}

// listenUnix creates a listening socket. The socket file has its final mode before any
// process can connect to the socket. The broker must have locked the runtime directory. If
// listenUnix fails, it removes the socket file that it has created.
func listenUnix(path string, mode uint32, gid int) (*net.UnixListener, error) {
	fd, file, err := newSocket(mode)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := bindSocket(fd, path, mode, gid); err != nil {
		return nil, err
	}
	listener, err := listen(fd, file)
	if err != nil {
		os.Remove(path)
	}
	return listener, err
}

// newSocket returns a socket that is not bound to a path. file owns the file descriptor fd, so
// close only file.
func newSocket(mode uint32) (fd int, file *os.File, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("creating a socket: %w", err)
	}
	file = os.NewFile(uintptr(fd), "")
	// The system call bind will create the socket file with this mode minus the umask. So the
	// socket file never allows more than mode allows. bindSocket then sets exactly mode. Do not
	// change the umask instead, because the umask applies to the whole process.
	if err := unix.Fchmod(fd, mode); err != nil {
		file.Close()
		return -1, nil, fmt.Errorf("setting the mode of a socket: %w", err)
	}
	// With this option, the kernel refuses passed file descriptors (since Linux 6.16; see
	// package endpoint). Connections inherit the option from the listener, so the option
	// must be set before the socket listens.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
	return fd, file, nil
}

// bindSocket binds a socket to a path, and sets the mode of the socket file. It also sets the
// group of the socket file, unless gid is -1. Clients can connect only after listen was called.
func bindSocket(fd int, path string, mode uint32, gid int) error {
	if len(path) > maxSocketPath {
		return errTooLong(path)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("binding %s: %w", path, err)
	}
	var err error
	if gid >= 0 {
		err = os.Lchown(path, -1, gid)
	}
	if err == nil {
		err = chmodSocket(path, mode)
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

// listen makes the bound socket fd listen, and returns a listener with a copy of fd. file is the
// os.File of fd. listen does not close file.
func listen(fd int, file *os.File) (*net.UnixListener, error) {
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, fmt.Errorf("listening on a socket: %w", err)
	}
	// A listener that net.FileListener returns does not remove its socket file when the
	// listener is closed.
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// chmodSocket sets the mode of a socket file. It follows no symlink, and returns an error if the
// file is not a socket. Between bind and this call, a container that mounts the directory can
// replace the socket file with a symlink to any file, and the broker must not change the mode of
// that file.
func chmodSocket(path string, mode uint32) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("checking %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s is not the socket that the broker created", path)
	}
	// The system call fchmod does not accept an O_PATH file descriptor. The system call
	// fchmodat follows symlinks, and fchmodat2 exists only since Linux 6.6. So this code does
	// the same as fchmodat(3) with AT_SYMLINK_NOFOLLOW in the C library.
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode); err != nil {
		return fmt.Errorf("setting the mode of %s: %w", path, err)
	}
	return nil
}

// removeStaleSocket removes a socket file if no process listens on the socket. If a process
// listens on the socket, or if the file is not a socket, it returns an error. Because of the lock
// of the runtime directory, no other broker can listen on the socket. But a service manager can
// listen on the socket, and the broker must not remove the socket file of a service manager.
func removeStaleSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case fs.ModeSocket:
	default:
		return fmt.Errorf("%s exists and is not a socket: move or remove it", path)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("creating a socket: %w", err)
	}
	defer unix.Close(fd)
	// ECONNREFUSED means that no process listens on the socket. If a process listens and its
	// backlog is full, the error is EAGAIN.
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != unix.ECONNREFUSED {
		return fmt.Errorf("another process listens on %s", path)
	}
	return os.Remove(path)
}

// peerCredentials returns the credentials of the process that called listen(2) (SO_PEERCRED,
// unix(7)). The argument is the listener, or the client's end of a connection to the
// listener.
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
