package rundir

import (
	"bytes"
	"path/filepath"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A SocketID identifies a socket file. If another file replaces the socket file, that file
// has another SocketID, at least while the broker has the socket file open. After that,
// the kernel can use the inode number again. The zero SocketID means that there is no
// socket file.
type SocketID struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// socketIn returns the path of the socket file in the directory of a project.
func socketIn(dir string) string { return filepath.Join(dir, "broker.sock") }

// openSocketFile opens a socket file (O_PATH), and returns its ID and the file descriptor. If
// there is no socket file at path, or if it cannot be opened, the result is the zero SocketID and
// -1.
func openSocketFile(path string) (id SocketID, file int) {
	file, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return SocketID{}, -1
	}
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		unix.Close(file)
		return SocketID{}, -1
	}
	return SocketID{st.Dev, st.Ino}, file
}

// socketFiles contains the open socket files of the projects. The broker checks all socket
// files every second. The kernel returns the current path of an open file without an operation
// in the directory, so this check needs no child process.
type socketFiles struct {
	root string // the path of the runtime directory without symbolic links, with a slash at its end

	mu    sync.Mutex
	files map[string]socketFile // guarded by mu; the keys are directories, relative to the runtime directory
}

type socketFile struct {
	id   SocketID
	file int // open file descriptor (O_PATH)
}

// set stores the open socket file of a directory, and closes the previous socket file of this
// directory. If file is -1, there is no socket file, and set stores nothing.
func (f *socketFiles) set(dir string, id SocketID, file int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, ok := f.files[dir]; ok {
		unix.Close(old.file)
		delete(f.files, dir)
	}
	if file >= 0 {
		if f.files == nil {
			f.files = map[string]socketFile{}
		}
		f.files[dir] = socketFile{id, file}
	}
}

// find returns the ID of the stored socket file of a directory. The second result is false if no
// socket file is stored, or if the stored socket file was removed or renamed.
func (f *socketFiles) find(dir string) (SocketID, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known, ok := f.files[dir]
	if !ok {
		return SocketID{}, false
	}
	var path [unix.PathMax]byte
	n := readOpenPath(known.file, path[:])
	// The path of a removed file ends with " (deleted)". Compare the whole path and not only its
	// end: a container can create the directories projects/.DIGEST in its own directory, and move
	// the socket file there.
	parent, isSocket := bytes.CutSuffix(path[:n], []byte("/broker.sock"))
	parent, isInDir := bytes.CutSuffix(parent, []byte(dir))
	return known.id, isSocket && isInDir && string(parent) == f.root
}

// readOpenPath copies the current path of an open file to path, and returns its length. The length is
// 0 after an error. unix.Readlink would allocate memory, and the broker checks all projects every
// second. The process would then need more and more memory until the next garbage collection.
func readOpenPath(file int, path []byte) int {
	var buffer [32]byte
	link := append(strconv.AppendInt(append(buffer[:0], "/proc/self/fd/"...), int64(file), 10), 0)
	at := unix.AT_FDCWD
	n, _, err := unix.Syscall6(unix.SYS_READLINKAT, uintptr(at), uintptr(unsafe.Pointer(&link[0])), uintptr(unsafe.Pointer(&path[0])), uintptr(len(path)), 0, 0)
	if err != 0 {
		return 0
	}
	return int(n)
}

// mode returns the mode of the socket file of a directory. The second result is false if the
// socket file with this ID is not known.
func (f *socketFiles) mode(dir string, id SocketID) (mode uint32, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known, ok := f.files[dir]
	if !ok || known.id != id {
		return 0, false
	}
	var st unix.Stat_t
	err := unix.Fstat(known.file, &st)
	return st.Mode, err == nil
}

func (f *socketFiles) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, known := range f.files {
		unix.Close(known.file)
	}
	f.files = nil
}
