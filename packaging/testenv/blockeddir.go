package testenv

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A BlockedDir is a directory in which every operation hangs (fuse(4)). Tests use a BlockedDir
// because a process in a container can make operations hang in the directory that is mounted there.
type BlockedDir struct {
	path   string
	device int           // file descriptor of the connection to the kernel
	Used   chan struct{} // closed when the first operation hangs
}

// BlockDirectory blocks a directory until Unblock is called or the test ends.
func BlockDirectory(t testing.TB, path string) *BlockedDir {
	t.Helper()
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	Require(t, err == nil && os.Geteuid() == 0, "blocking a directory requires root and /dev/fuse")
	options := fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", device)
	if err := unix.Mount("keyhatch-test", path, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(device)
		Require(t, false, "cannot mount a FUSE file system: "+err.Error())
	}
	b := &BlockedDir{path, device, make(chan struct{})}
	go b.serve() // this goroutine ends when Unblock unmounts the file system
	t.Cleanup(b.Unblock)
	return b
}

// serve answers only the first request (FUSE_INIT in linux/fuse.h, version 7.31). Without
// this answer, the kernel would not send the requests of later operations.
func (b *BlockedDir) serve() {
	defer unix.Close(b.device)
	request := make([]byte, 1<<17)
	if _, err := unix.Read(b.device, request); err != nil {
		return
	}
	answer := make([]byte, 16+64)
	binary.LittleEndian.PutUint32(answer, uint32(len(answer)))
	copy(answer[8:], request[8:16]) // the answer contains the number of the request
	binary.LittleEndian.PutUint32(answer[16:], 7)
	binary.LittleEndian.PutUint32(answer[20:], 31)
	binary.LittleEndian.PutUint32(answer[36:], 4096) // max_write
	unix.Write(b.device, answer)
	for used := false; ; {
		_, err := unix.Read(b.device, request)
		switch {
		case err == unix.ENOENT, err == unix.EINTR: // a signal interrupted the operation or this read
		case err != nil:
			return
		case !used:
			used = true
			close(b.Used)
		}
	}
}

// Unblock makes the hanging operations fail, and the directory usable again.
func (b *BlockedDir) Unblock() { unix.Unmount(b.path, unix.MNT_FORCE|unix.MNT_DETACH) }
