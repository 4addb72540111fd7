package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// A writerState is the kernel's report whether a process has a file open for writing.
type writerState int

const (
	writersUnknown writerState = iota // the kernel does not report it (see leaseFile)
	writersExist
	writersNone
)

// leaseFile asks the kernel for a read lease (fcntl(2), F_SETLEASE). The kernel grants the
// lease only if no process has the file open for writing. Until the file is closed, a process
// that opens the file for writing or truncates the file waits in the kernel. So read and
// close the file immediately after leaseFile.
//
// The kernel refuses a lease to a user who does not own the file and has no capability CAP_LEASE.
// Many network file systems have no leases. For a FUSE file system, leaseFile returns writersUnknown,
// because the kernel may grant a lease although a process on another machine, for example on the host
// of a virtual machine, has the file open for writing.
func leaseFile(f *os.File) writerState {
	conn, err := f.SyscallConn()
	if err != nil {
		return writersUnknown
	}
	state := writersUnknown
	conn.Control(func(fd uintptr) {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(int(fd), &fs); err != nil || fs.Type == unix.FUSE_SUPER_MAGIC {
			return
		}
		_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK)
		switch {
		case err == nil:
			state = writersNone
		case errors.Is(err, unix.EAGAIN):
			state = writersExist
		}
	})
	return state
}
