package main

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A fuseMount is a file system that answers as few requests as possible (fuse(4)). The
// attacks use it like a file system that hangs, and like a directory that a process locks in
// the kernel.
type fuseMount struct {
	dir    string
	device *os.File
}

// mountFUSE mounts a file system that answers nothing until serve runs. It needs root.
func mountFUSE(dir string) (*fuseMount, error) {
	// os.OpenFile would add the device to the poller of the Go runtime. Before the mount, the
	// poller gets an error for the device, and all reads could then fail.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	device := os.NewFile(uintptr(fd), "/dev/fuse")
	options := fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("keyhatch-attack", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		device.Close()
		return nil, err
	}
	return &fuseMount{dir, device}, nil
}

// unmount unmounts the file system. This ends all operations that wait for an answer.
func (m *fuseMount) unmount() {
	unix.Unmount(m.dir, unix.MNT_FORCE|unix.MNT_DETACH)
	m.device.Close()
}

// These are the numbers of the operations that serve answers (linux/fuse.h).
const (
	fuseGetAttr = 3
	fuseInit    = 26
	fuseOpenDir = 27
)

// serve answers the operations that are necessary to open the root directory. It does not
// answer other operations, for example closing a file. It returns when the file system is
// unmounted.
func (m *fuseMount) serve() {
	request := make([]byte, 1<<17)
	for {
		n, err := m.device.Read(request)
		if err != nil || n < 40 {
			return
		}
		var answer []byte
		switch binary.LittleEndian.Uint32(request[4:]) {
		case fuseInit: // version 7.31
			answer = make([]byte, 64)
			binary.LittleEndian.PutUint32(answer, 7)
			binary.LittleEndian.PutUint32(answer[4:], 31)
			binary.LittleEndian.PutUint32(answer[20:], 4096) // max_write
		case fuseGetAttr:
			answer = make([]byte, 104)
			binary.LittleEndian.PutUint64(answer[16:], 1)                      // inode number
			binary.LittleEndian.PutUint32(answer[16+60:], unix.S_IFDIR|0o0755) // mode
			binary.LittleEndian.PutUint32(answer[16+64:], 2)                   // number of links
		case fuseOpenDir:
			answer = make([]byte, 16)
		default:
			continue
		}
		header := make([]byte, 16)
		binary.LittleEndian.PutUint32(header, uint32(16+len(answer)))
		copy(header[8:], request[8:16]) // the number of the request
		m.device.Write(append(header, answer...))
	}
}
