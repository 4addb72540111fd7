package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the maximum length of a socket's path, in bytes. The field sun_path of
// the kernel has 108 bytes, and its last byte must be NUL (unix(7)).
const maxSocketPath = 107

func errTooLong(path string) error {
	return fmt.Errorf("the socket path %s has %d bytes, but the limit is %d: choose a shorter runtime directory, or a shorter name for a project", path, len(path), maxSocketPath)
}

// listenUnix creates a listening socket. The socket file has its final mode before any
// process can connect to the socket. The runtime directory must be locked.
func listenUnix(path string, mode uint32, gid int) (*net.UnixListener, error) {
	if len(path) > maxSocketPath {
		return nil, errTooLong(path)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("creating a socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	// bind creates the socket file with the mode of the file descriptor minus the umask. So
	// the socket file never has a mode that allows too much. This function does not change
	// the umask, because the umask applies to the whole process. No client can connect
	// before the call of listen.
	if err := unix.Fchmod(fd, mode); err != nil {
		return nil, fmt.Errorf("setting the mode of %s: %w", path, err)
	}
	// With this option, the kernel refuses passed file descriptors (since Linux 6.16; see
	// package endpoint). Connections inherit the option from the listener, so the option
	// must be set before the socket listens.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
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
	// A listener that net.FileListener returns does not remove its socket file when the
	// listener is closed.
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// chmodSocket sets the mode of a socket file. It returns an error if the file is not a
// socket. Between bind and this call, a container that mounts the directory can replace the
// socket file with a symlink to any file that the broker may change.
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
	// The system call fchmod does not accept an O_PATH file descriptor. Before Linux 6.6, the
	// system call fchmodat follows symlinks. So this code does the same as fchmodat(3) with
	// AT_SYMLINK_NOFOLLOW in the C library.
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode); err != nil {
		return fmt.Errorf("setting the mode of %s: %w", path, err)
	}
	return nil
}

// removeStaleSocket removes a socket file if no process listens on the socket. Because of
// the lock of the runtime directory, no other broker can listen on the socket. But a service
// manager can listen on the socket for the broker, and such a socket must not be removed.
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
