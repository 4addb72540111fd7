package rundir

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// ErrInUse means that a link leads to the directory of another project.
var ErrInUse = errors.New("the link belongs to another project")

// directoryName returns the name of the directory for the project at a path. The name
// consists of a dot and 130 bits of a digest of the path. No project name begins with a dot, so
// no link can have the name of a directory. The broker does not store the directory name, because
// the same path always has the same directory name.
func directoryName(projectPath string) string {
	digest := sha256.Sum256([]byte(projectPath))
	return "." + strings.ToLower(base32.StdEncoding.EncodeToString(digest[:]))[:26]
}

// projectDir returns the path of the directory for the project at a path. The returned path
// is relative to the runtime directory.
func projectDir(projectPath string) string {
	return filepath.Join("projects", directoryName(projectPath))
}

// NamedSocket returns a path of a project's socket file. The path contains the name of the
// project, and leads through the link with this name.
func (d *Dir) NamedSocket(name schema.ProjectName) string {
	return filepath.Join(d.path, "projects", string(name), "broker.sock")
}

// A Socket is a listening socket of a project, with the identity of its socket file.
type Socket struct {
	Listener *net.UnixListener
	ID       SocketID
	dir      string // relative to the runtime directory
}

// Copy returns the same socket with another listener. If one of the listeners is closed, the
// other listener still accepts connections.
func (s Socket) Copy() (Socket, error) {
	raw, err := s.Listener.SyscallConn()
	if err != nil {
		return Socket{}, err
	}
	// Do not use the method File of the listener, because net.FileListener would make its result
	// blocking for a moment. The old listener uses the same socket, so its Accept could then block
	// a thread.
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
	return Socket{listener.(*net.UnixListener), s.ID, s.dir}, nil
}

// BindProject creates the directory of the project at a path if necessary, and the socket
// in this directory. After BindProject has succeeded, the broker never removes the
// directory. Otherwise, a container that mounts the directory would still have the deleted
// directory and would not see a new one. The error can be ErrBlocked.
func (d *Dir) BindProject(projectPath string) (Socket, error) {
	socket, file, err := newSocket(projectSocketMode)
	if err != nil {
		return Socket{}, err
	}
	defer file.Close()
	dir := projectDir(projectPath)
	bound, err := d.children.run(operation{Name: opBind, Dir: dir}, socket)
	if err != nil {
		return Socket{}, err
	}
	d.files.set(dir, bound.ID, bound.file)
	// The broker calls listen, and not the child process, because clients and FindSocket see
	// the credentials of the process that called listen.
	listener, err := listen(socket, file)
	if err != nil {
		d.RemoveSocket(projectPath, bound.ID)
		return Socket{}, err
	}
	return Socket{listener, bound.ID, dir}, nil
}

// RemoveSocket removes the socket file of the project at a path, but only if the socket file has
// the given ID. The error can be ErrBlocked. If the kernel refuses to remove the socket file,
// RemoveSocket returns no error.
func (d *Dir) RemoveSocket(projectPath string, id SocketID) error {
	dir := projectDir(projectPath)
	d.files.set(dir, SocketID{}, -1)
	_, err := d.children.run(operation{Name: opRemove, Dir: dir, ID: id}, -1)
	return err
}

// IsIntact reports whether the socket file of a socket is still at its path. IsIntact does not use
// the directory of the socket file, so a container cannot delay it. IsIntact also returns false
// if the broker does not have the socket file open. To get the identity of the current socket file
// in this case, call ProjectSocketID.
func (d *Dir) IsIntact(s Socket) bool {
	id, ok := d.files.find(s.dir)
	return ok && id == s.ID
}

// IsModeChanged reports whether the mode of the socket file of a socket was changed, so that not all
// uids can connect any more. A container cannot delay IsModeChanged. The result is false if the
// socket file is not intact.
func (d *Dir) IsModeChanged(s Socket) bool {
	mode, ok := d.files.mode(s.dir, s.ID)
	return ok && mode&projectSocketMode != projectSocketMode
}

// ProjectSocketID returns the identity of the socket file of the project at a path, or the zero
// SocketID if there is no socket file. The error can be ErrBlocked.
func (d *Dir) ProjectSocketID(projectPath string) (SocketID, error) {
	dir := projectDir(projectPath)
	if id, ok := d.files.find(dir); ok {
		return id, nil
	}
	r, err := d.children.run(operation{Name: opIdentify, Dir: dir}, -1)
	if err != nil {
		return SocketID{}, err
	}
	d.files.set(dir, r.ID, r.file)
	return r.ID, nil
}

// FindSocket checks whether clients that connect to the socket file of the project at a path
// reach the given listener. If they do, FindSocket returns the listener as a Socket, and true. If
// they do not, it returns false. The check is necessary because a container can replace the
// socket file while no broker runs. FindSocket connects to the socket and closes the connection,
// so the listener later accepts one connection that is already closed. If FindSocket cannot check
// the socket file, for example because the directory is blocked, it returns the listener with the
// zero SocketID, and true.
func (d *Dir) FindSocket(projectPath string, listener *net.UnixListener) (socket Socket, ok bool) {
	credentials, err := peerCredentials(listener)
	if err != nil {
		return Socket{}, false
	}
	dir := projectDir(projectPath)
	found, err := d.children.run(operation{Name: opFind, Dir: dir, Credentials: credentials}, -1)
	if err != nil {
		return Socket{Listener: listener, dir: dir}, true
	}
	d.files.set(dir, found.ID, found.file)
	return Socket{listener, found.ID, dir}, found.ID != SocketID{}
}
