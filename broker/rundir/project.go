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

// BindProject creates the socket of the project at a path, and its directory. The
// directory is never removed: a container that has it mounted would keep the deleted one.
func (d *Dir) BindProject(projectPath string) (*net.UnixListener, error) {
	if err := d.ensureDir(filepath.Join("projects", directoryName(projectPath)), 0o755, -1); err != nil {
		return nil, err
	}
	// A file here is a leftover, or the project's container created it. It may even be a
	// socket on which a process of the container listens.
	path := d.socketPath(projectPath)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot replace %s: %w", path, err)
	}
	// Any uid may connect, because only root and the project's container can
	// reach the directory.
	return d.listen(path, 0o666, -1)
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

// RemoveSocket removes the socket of the project at a path.
func (d *Dir) RemoveSocket(projectPath string) { os.Remove(d.socketPath(projectPath)) }

// A SocketID identifies a socket file, even if another file has its path. The zero
// SocketID is that of no file.
type SocketID struct{ device, inode uint64 }

// ProjectSocketID returns the identity of the socket of the project at a path.
func (d *Dir) ProjectSocketID(projectPath string) SocketID {
	var st unix.Stat_t
	if err := unix.Lstat(d.socketPath(projectPath), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return SocketID{}
	}
	return SocketID{st.Dev, st.Ino}
}

// IsReachable reports whether clients that connect to the socket of the project at a path
// reach the listener. A container can replace the socket file while no broker runs. The
// check connects to the socket, so the listener accepts a connection that is closed already.
func (d *Dir) IsReachable(projectPath string, listener *net.UnixListener) bool {
	if d.ProjectSocketID(projectPath) == (SocketID{}) {
		return false // connecting would follow a symlink
	}
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
