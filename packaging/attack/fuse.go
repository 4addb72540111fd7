package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A fuseMount is a file system that answers as few requests as possible (fuse(4)). The
// attacks use it as a file system that hangs, and to keep a directory locked in the kernel
// (see lockInKernel).
type fuseMount struct {
	path    string
	mode    uint32 // type and permissions of the root of the file system
	device  *os.File
	reading chan struct{} // closed when the kernel reads a page of the root file
}

// mountFUSE mounts a file system that answers nothing until serve runs. The root of the file
// system has the given mode. It can be a directory or a file. mountFUSE needs root.
func mountFUSE(path string, mode uint32) (*fuseMount, error) {
	// os.OpenFile would add the device to the poller of the Go runtime. Before the mount, the
	// poller gets an error for the device, and all reads could then fail.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	device := os.NewFile(uintptr(fd), "/dev/fuse")
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,allow_other", fd, mode)
	if err := unix.Mount("keyhatch-attack", path, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		device.Close()
		return nil, err
	}
	return &fuseMount{path, mode, device, make(chan struct{})}, nil
}

// unmount unmounts the file system. This ends all operations that wait for an answer.
func (m *fuseMount) unmount() {
	unix.Unmount(m.path, unix.MNT_FORCE|unix.MNT_DETACH)
	m.device.Close()
}

// These are the numbers of the operations that the method serve handles (linux/fuse.h).
const (
	fuseGetAttr = 3
	fuseOpen    = 14
	fuseRead    = 15
	fuseInit    = 26
	fuseOpenDir = 27
)

// serve answers the operations that are necessary to open the root of the file system. It
// does not answer other operations, for example reading and closing a file. It returns when
// the file system is unmounted.
func (m *fuseMount) serve() {
	request := make([]byte, 1<<17)
	var reading sync.Once
	for {
		n, err := m.device.Read(request)
		if err != nil || n < 40 {
			return
		}
		var answer []byte
		switch binary.LittleEndian.Uint32(request[4:]) {
		case fuseInit: // the answer selects version 7.31 of the protocol
			answer = make([]byte, 64)
			binary.LittleEndian.PutUint32(answer, 7)
			binary.LittleEndian.PutUint32(answer[4:], 31)
			binary.LittleEndian.PutUint32(answer[12:], 1)    // FUSE_ASYNC_READ, so that SIGKILL can end a process that waits for a page
			binary.LittleEndian.PutUint32(answer[20:], 4096) // max_write
		case fuseGetAttr:
			answer = make([]byte, 104)
			binary.LittleEndian.PutUint64(answer[16:], 1)         // inode number
			binary.LittleEndian.PutUint64(answer[16+8:], 1<<20)   // size
			binary.LittleEndian.PutUint32(answer[16+60:], m.mode) // mode
			binary.LittleEndian.PutUint32(answer[16+64:], 2)      // number of links
		case fuseOpen, fuseOpenDir:
			answer = make([]byte, 16)
		case fuseRead:
			reading.Do(func() { close(m.reading) })
			continue
		default:
			continue
		}
		header := make([]byte, 16)
		binary.LittleEndian.PutUint32(header, uint32(16+len(answer)))
		copy(header[8:], request[8:16]) // the answer contains the number of the request
		m.device.Write(append(header, answer...))
	}
}
