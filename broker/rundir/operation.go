package rundir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// An operation is a task in a directory that a container can mount. A child process runs it.
type operation struct {
	Name string `json:"name"` // one of the constants below
	Dir  string `json:"dir"`  // relative to the runtime directory
	// opRemove removes only the socket file with this ID.
	ID SocketID `json:"id"`
	// opFind compares these credentials with the credentials that a client of the socket sees.
	Credentials unix.Ucred `json:"credentials"`
}

const (
	opBind     = "bind"      // create the directory, and bind the passed socket in it
	opRemove   = "remove"    // remove the socket file
	opIdentify = "identify"  // return the ID of the socket file
	opFind     = "find"      // return the ID of the socket file if clients reach the broker through it
	opCount    = "count"     // count the entries of the directory
	opMoveAway = "move-away" // rename the directory
)

// A result is what a child process returns after an operation.
type result struct {
	ID      SocketID `json:"id"`              // zero if there is no socket file, or if the operation returns no ID
	Entries int      `json:"entries"`         // the result of opCount; -1 if the directory cannot be read
	Error   string   `json:"error,omitempty"` // "" if the operation succeeded
	file    int      // open file descriptor (O_PATH) of the socket file with the ID, or -1
}

// run runs the operation in this process. socket is the passed file descriptor, or -1.
func (o operation) run(runtimeDir string, socket int) (r result, err error) {
	dir := filepath.Join(runtimeDir, o.Dir)
	r.file = -1
	switch o.Name {
	case opBind:
		if err = bindInDir(dir, socket); err == nil {
			r.ID, r.file = openSocketFile(socketIn(dir))
		}
	case opRemove:
		id, file := openSocketFile(socketIn(dir))
		unix.Close(file)
		if id == o.ID {
			os.Remove(socketIn(dir))
		}
	case opIdentify:
		r.ID, r.file = openSocketFile(socketIn(dir))
	case opFind:
		// Check the ID first, because connecting to the path would follow a symlink.
		r.ID, r.file = openSocketFile(socketIn(dir))
		if r.ID != (SocketID{}) && !reaches(socketIn(dir), o.Credentials) {
			unix.Close(r.file)
			r.ID, r.file = SocketID{}, -1
		}
	case opCount:
		entries, err := os.ReadDir(dir)
		r.Entries = len(entries)
		if err != nil {
			r.Entries = -1
		}
	case opMoveAway:
		err = moveAway(dir)
	default:
		err = fmt.Errorf("unknown operation %q", o.Name)
	}
	return r, err
}

// bindInDir creates the directory of a project, and binds a socket in this directory.
func bindInDir(dir string, socket int) (err error) {
	if os.Mkdir(dir, 0o755) == nil {
		defer func() {
			if err != nil { // remove the new directory, which no container can mount yet
				os.Remove(dir)
			}
		}()
	}
	if err := ensureDir(dir, 0o755, -1); err != nil {
		return err
	}
	// If a file exists at this path, an earlier broker or the project's container has created
	// it. Replace the file, because it can be a socket on which a process in the container
	// listens.
	path := socketIn(dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot replace %s: %w", path, err)
	}
	return explainFull(bindSocket(socket, path, projectSocketMode, -1), filepath.Dir(dir))
}

// reaches connects to a socket file, and reports whether the process that listens there has the
// given credentials.
func reaches(path string, want unix.Ucred) bool {
	client, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return false
	}
	defer client.Close()
	got, err := peerCredentials(client)
	return err == nil && got == want
}

// moveAway renames a directory that a container engine created at the place of a link. It does
// not remove the directory. rmdir(2) locks the parent directory and then waits for the lock of
// the directory. A container that holds this lock would then block the parent directory for
// all projects. rename(2) does not lock the directory itself if the parent directory stays the
// same.
func moveAway(dir string) error {
	name := "." + filepath.Base(dir) + "-" + rand.Text()
	return os.Rename(dir, filepath.Join(filepath.Dir(dir), name))
}
