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

// ErrNameInUse means that the name of a project leads to the directory of another path.
var ErrNameInUse = errors.New("the name is in use")

// directoryName returns the name of the directory that belongs to the path of a project:
// a dot, which no project's name begins with, and 130 bits of a digest. The same path
// always has the same directory, so the broker need not store the name.
func directoryName(projectPath string) string {
	digest := sha256.Sum256([]byte(projectPath))
	return "." + strings.ToLower(base32.StdEncoding.EncodeToString(digest[:]))[:26]
}

// socketPath returns the path of the socket that belongs to the path of a project.
func (d *Dir) socketPath(projectPath string) string {
	return filepath.Join(d.path, "projects", directoryName(projectPath), "broker.sock")
}

// NamedSocket returns the path of a project's socket through the link with its name.
func (d *Dir) NamedSocket(name schema.ProjectName) string {
	return filepath.Join(d.path, "projects", string(name), "broker.sock")
}

// ErrBlocked means that an operation in the directory of a project did not end in time.
var ErrBlocked = errors.New("a container may be blocking the directory of the project")

// directoryTimeout bounds each operation in a directory that a container mounts. A process
// in the container can list a large directory slowly, and the kernel lets nobody change the
// directory in the meantime. No way exists to interrupt the wait for that lock.
const directoryTimeout = time.Second

// inDirectory runs an operation in the directory of a project. If the operation does not
// end in time, inDirectory returns ErrBlocked, and closes abandoned. The operation then
// continues, and must undo its result. At most one operation runs for each project.
func (d *Dir) inDirectory(projectPath string, operate func(abandoned <-chan struct{})) error {
	timeout := time.NewTimer(directoryTimeout)
	defer timeout.Stop()
	busy := d.busy(projectPath)
	select {
	case busy <- struct{}{}:
	case <-timeout.C:
		return ErrBlocked
	}
	ended, abandoned := make(chan struct{}), make(chan struct{})
	go func() { // ends when the kernel lets it
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

// busy returns a channel that is full while an operation in the directory of a project
// runs.
func (d *Dir) busy(projectPath string) chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.operations == nil {
		d.operations = map[string]chan struct{}{}
	}
	if d.operations[projectPath] == nil {
		d.operations[projectPath] = make(chan struct{}, 1)
	}
	return d.operations[projectPath]
}

// A Socket is the socket of a project.
type Socket struct {
	Listener *net.UnixListener
	ID       SocketID
}

// BindProject creates the socket of the project at a path, and its directory. The
// directory is never removed: a container that has it mounted would keep the deleted one.
// The error can be ErrBlocked.
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
			if err == nil { // nobody would accept on this socket
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

func (d *Dir) bindProject(projectPath string) (Socket, error) {
	if err := d.ensureDir(filepath.Join("projects", directoryName(projectPath)), 0o755, -1); err != nil {
		return Socket{}, err
	}
	// A file here is a leftover, or the project's container created it. It may even be a
	// socket on which a process of the container listens.
	path := d.socketPath(projectPath)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Socket{}, fmt.Errorf("cannot replace %s: %w", path, err)
	}
	// Any uid may connect, because only root and the project's container can
	// reach the directory.
	listener, err := d.listen(path, 0o666, -1)
	if err != nil {
		return Socket{}, err
	}
	return Socket{listener, d.socketID(projectPath)}, nil
}

// CheckName returns an error if the name cannot lead to the directory of the path. The
// error is ErrNameInUse if the name leads to the directory of another path, even if no
// project is registered there any more. A container that mounts the name would get the
// secrets of the other project when the container is started again.
func (d *Dir) CheckName(name schema.ProjectName, projectPath string) error {
	link := filepath.Join(d.path, "projects", string(name))
	// Clients use this path.
	if socket := d.NamedSocket(name); len(socket) > maxSocketPath {
		return errTooLong(socket)
	}
	target, err := os.Readlink(link)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && target == directoryName(projectPath):
		return nil
	case err == nil:
		return fmt.Errorf("%w: %s leads to the directory of another project", ErrNameInUse, link)
	}
	entries, err := os.ReadDir(link)
	if err != nil {
		return fmt.Errorf("%s is not a link that the broker created: remove it", link)
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is a directory with content, which a container engine created because the project was not registered: remove the directory, and create the containers that mount it again", link)
	}
	return nil
}

// LinkName makes the name lead to the directory of the path. It replaces an empty
// directory, which a container engine creates if a container starts before its project is
// registered. That container keeps the empty directory until it is started again.
func (d *Dir) LinkName(name schema.ProjectName, projectPath string) error {
	if err := d.CheckName(name, projectPath); err != nil {
		return err
	}
	link := filepath.Join(d.path, "projects", string(name))
	if _, err := os.Readlink(link); err == nil {
		return nil // a restart must not need space
	}
	if err := unix.Rmdir(link); err != nil && err != unix.ENOENT {
		return fmt.Errorf("cannot replace %s: %w", link, err)
	}
	return os.Symlink(directoryName(projectPath), link)
}

// RemoveSocket removes the socket of the project at a path, unless another file has its
// path.
func (d *Dir) RemoveSocket(projectPath string, id SocketID) error {
	return d.inDirectory(projectPath, func(<-chan struct{}) {
		if d.socketID(projectPath) == id {
			os.Remove(d.socketPath(projectPath))
		}
	})
}

// A SocketID identifies a socket file, even if another file has its path. The zero
// SocketID is that of no file.
type SocketID struct{ device, inode uint64 }

func (d *Dir) socketID(projectPath string) SocketID {
	var st unix.Stat_t
	if err := unix.Lstat(d.socketPath(projectPath), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return SocketID{}
	}
	return SocketID{st.Dev, st.Ino}
}

// ProjectSocketID returns the identity of the socket of the project at a path. The error
// is ErrBlocked.
func (d *Dir) ProjectSocketID(projectPath string) (SocketID, error) {
	ids := make(chan SocketID, 1)
	if err := d.inDirectory(projectPath, func(<-chan struct{}) { ids <- d.socketID(projectPath) }); err != nil {
		return SocketID{}, err
	}
	return <-ids, nil
}

// FindSocket returns the socket of a listener if clients that connect to the socket of the
// project at a path reach the listener. A container can replace the socket file while no
// broker runs. The check connects to the socket, so the listener accepts a connection that
// is closed already.
func (d *Dir) FindSocket(projectPath string, listener *net.UnixListener) (socket Socket, ok bool) {
	found := make(chan SocketID, 1)
	if err := d.inDirectory(projectPath, func(<-chan struct{}) {
		id := d.socketID(projectPath)
		if id != (SocketID{}) && !d.reaches(projectPath, listener) { // connecting would follow a symlink
			id = SocketID{}
		}
		found <- id
	}); err != nil {
		return Socket{}, false
	}
	id := <-found
	return Socket{listener, id}, id != SocketID{}
}

// reaches reports whether the process that listens on the socket of a project is the
// process that created the listener.
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

// LinkDevcontainers gives the directory of a path additional names, so that a dev
// container's mount can name the directory before the project's name is known. It
// replaces a link of another project: a dev container's id belongs to exactly one folder.
func (d *Dir) LinkDevcontainers(projectPath string, ids []schema.DevcontainerID) error {
	target := devcontainerTarget(projectPath)
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

// UnlinkDevcontainers removes those of the links that lead to the directory of the path.
func (d *Dir) UnlinkDevcontainers(projectPath string, ids []schema.DevcontainerID) {
	for _, id := range ids {
		path := filepath.Join(d.path, "devcontainers", string(id))
		if target, err := os.Readlink(path); err == nil && target == devcontainerTarget(projectPath) {
			os.Remove(path)
		}
	}
}

func devcontainerTarget(projectPath string) string {
	return filepath.Join("..", "projects", directoryName(projectPath))
}
