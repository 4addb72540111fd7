package rundir

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// ErrInUse means that a link leads to the directory of another project.
var ErrInUse = errors.New("the link is in use")

// directoryName returns the name of the directory for the project at a path. The name
// consists of a dot and 130 bits of a digest of the path. No project name begins with a dot.
// The broker does not store the directory name, because the same path always has the same
// directory name.
func directoryName(projectPath string) string {
	digest := sha256.Sum256([]byte(projectPath))
	return "." + strings.ToLower(base32.StdEncoding.EncodeToString(digest[:]))[:26]
}

// socketPath returns the path of the socket file of the project at projectPath.
func (d *Dir) socketPath(projectPath string) string {
	return filepath.Join(d.path, "projects", directoryName(projectPath), "broker.sock")
}

// NamedSocket returns the path of a project's socket file that contains the name of the
// project. This path leads through the link with the project's name.
func (d *Dir) NamedSocket(name schema.ProjectName) string {
	return filepath.Join(d.path, "projects", string(name), "broker.sock")
}

// ErrBlocked means that an operation in the directory of a project did not end within
// directoryTimeout.
var ErrBlocked = errors.New("a container may be blocking the directory of the project")

// directoryTimeout is the maximum time of each operation in a directory that a container
// mounts. A process in the container can list a large directory slowly. The kernel locks the
// directory during the listing. The broker cannot interrupt a system call that waits for
// this lock.
const directoryTimeout = time.Second

// inDirectory runs an operation in a directory that a container can mount. The key is the
// path of the project, or the path of the directory at the place of a link. If the operation
// does not end within directoryTimeout, inDirectory closes the channel abandoned and returns
// ErrBlocked. The operation then continues in its goroutine, and must undo its result at the
// end. At most one operation runs at the same time for each key.
func (d *Dir) inDirectory(key string, operate func(abandoned <-chan struct{})) error {
	timeout := time.NewTimer(directoryTimeout)
	defer timeout.Stop()
	busy := d.busy(key)
	select {
	case busy <- struct{}{}:
	case <-timeout.C:
		return ErrBlocked
	}
	ended, abandoned := make(chan struct{}), make(chan struct{})
	go func() { // ends when the system calls of the operation return
		operate(abandoned)
		<-busy
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-timeout.C:
		close(abandoned)
		return ErrBlocked
	}
}

// busy returns the channel of a key, which has room for one value. The channel is full while
// an operation with this key runs.
func (d *Dir) busy(key string) chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.operations == nil {
		d.operations = map[string]chan struct{}{}
	}
	if d.operations[key] == nil {
		d.operations[key] = make(chan struct{}, 1)
	}
	return d.operations[key]
}

// A Socket is a listening socket of a project, with the identity of its socket file.
type Socket struct {
	Listener *net.UnixListener
	ID       SocketID
}

// Copy returns the same socket with another listener. If one of the listeners is closed, the
// other listener still accepts connections.
func (s Socket) Copy() (Socket, error) {
	raw, err := s.Listener.SyscallConn()
	if err != nil {
		return Socket{}, err
	}
	// Do not use the File method. Its file would make the socket blocking for a moment, also
	// for the goroutine that accepts connections on it.
	var fd int
	if controlErr := raw.Control(func(listener uintptr) { fd, err = unix.FcntlInt(listener, unix.F_DUPFD_CLOEXEC, 0) }); controlErr != nil {
		return Socket{}, controlErr
	}
	if err != nil {
		return Socket{}, fmt.Errorf("copying a listener: %w", err)
	}
	file := os.NewFile(uintptr(fd), "")
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return Socket{}, err
	}
	return Socket{listener.(*net.UnixListener), s.ID}, nil
}

// BindProject creates the directory of the project at a path, and the socket in this
// directory. The broker never removes the directory. Otherwise, a container that mounts the
// directory would still have the deleted directory and would not see a new one. The error
// can be ErrBlocked.
func (d *Dir) BindProject(projectPath string) (Socket, error) {
	type result struct {
		socket Socket
		err    error
	}
	results := make(chan result, 1)
	if err := d.inDirectory(projectPath, func(abandoned <-chan struct{}) {
		socket, err := d.bindProject(projectPath)
		select {
		case <-abandoned:
			if err == nil { // no goroutine would accept connections on this socket
				os.Remove(d.socketPath(projectPath))
				socket.Listener.Close()
			}
		default:
			results <- result{socket, err}
		}
	}); err != nil {
		return Socket{}, err
	}
	r := <-results
	return r.socket, r.err
}

func (d *Dir) bindProject(projectPath string) (socket Socket, err error) {
	dir := filepath.Join("projects", directoryName(projectPath))
	if os.Mkdir(filepath.Join(d.path, dir), 0o755) == nil {
		defer func() {
			if err != nil { // no container can mount the new directory yet
				os.Remove(filepath.Join(d.path, dir))
			}
		}()
	}
	if err := d.ensureDir(dir, 0o755, -1); err != nil {
		return Socket{}, err
	}
	// An earlier broker or the project's container created a file that already exists at
	// this path. The file can be a socket on which a process in the container listens.
	path := d.socketPath(projectPath)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Socket{}, fmt.Errorf("cannot replace %s: %w", path, err)
	}
	// The mode allows all uids to connect. Only root and the project's container can reach
	// the directory.
	listener, err := d.listen(path, 0o666, -1)
	if err != nil {
		return Socket{}, err
	}
	return Socket{listener, d.socketID(projectPath)}, nil
}

// RemoveSocket removes the socket file of the project at a path. It removes nothing if
// another file has replaced the socket file with this ID. The error can be ErrBlocked.
func (d *Dir) RemoveSocket(projectPath string, id SocketID) error {
	return d.inDirectory(projectPath, func(<-chan struct{}) {
		if d.socketID(projectPath) == id {
			os.Remove(d.socketPath(projectPath))
		}
	})
}

// A SocketID identifies a socket file. If another file replaces the socket file, that file
// has another SocketID. The zero SocketID means that there is no socket file.
type SocketID struct{ device, inode uint64 }

func (d *Dir) socketID(projectPath string) SocketID {
	var st unix.Stat_t
	if err := unix.Lstat(d.socketPath(projectPath), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return SocketID{}
	}
	return SocketID{st.Dev, st.Ino}
}

// ProjectSocketID returns the identity of the socket file of the project at a path. The only
// possible error is ErrBlocked.
func (d *Dir) ProjectSocketID(projectPath string) (SocketID, error) {
	ids := make(chan SocketID, 1)
	if err := d.inDirectory(projectPath, func(<-chan struct{}) { ids <- d.socketID(projectPath) }); err != nil {
		return SocketID{}, err
	}
	return <-ids, nil
}

// FindSocket checks whether clients that connect to the socket file of the project at a path
// reach the given listener. If they do, FindSocket returns the listener as a Socket. The
// check is necessary because a container can replace the socket file while no broker runs.
// FindSocket connects to the socket and closes the connection, so the listener later accepts
// one connection that is already closed. If the directory is blocked, FindSocket cannot check
// the socket file. It then returns the listener with the zero SocketID.
func (d *Dir) FindSocket(projectPath string, listener *net.UnixListener) (socket Socket, ok bool) {
	found := make(chan SocketID, 1)
	if err := d.inDirectory(projectPath, func(<-chan struct{}) {
		id := d.socketID(projectPath)
		// Check the ID first, because connecting to the path would follow a symlink.
		if id != (SocketID{}) && !d.reaches(projectPath, listener) {
			id = SocketID{}
		}
		found <- id
	}); err != nil {
		return Socket{Listener: listener}, true
	}
	id := <-found
	return Socket{listener, id}, id != SocketID{}
}

// reaches reports whether the process that listens on the socket file of a project is the
// process that created the given listener.
func (d *Dir) reaches(projectPath string, listener *net.UnixListener) bool {
	want, err := peerCredentials(listener)
	if err != nil {
		return false
	}
	client, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: d.socketPath(projectPath), Net: "unix"})
	if err != nil {
		return false
	}
	defer client.Close()
	got, err := peerCredentials(client)
	return err == nil && got == want
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
