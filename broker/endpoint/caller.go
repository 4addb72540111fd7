package endpoint

import (
	"fmt"
	"net"
	"os"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// A Caller identifies the process that opened a connection. The kernel stores the values at the
// time of connect(2) (SO_PEERCRED, unix(7)). Later, another process may use the connection,
// because the caller can pass the file descriptor of the connection. So the broker mainly relies
// on the mount of the socket, and the check of the caller is a second check.
type Caller struct {
	UID, GID uint32
	PID      int32 // 0 if the caller is in a pid namespace that the broker cannot see
}

// Self returns the broker process as a Caller. If the broker changes a project because of a
// declaration, the audit event contains this Caller.
func Self() Caller {
	return Caller{uint32(os.Geteuid()), uint32(os.Getegid()), int32(os.Getpid())}
}

func callerOf(c *conn) (Caller, error) {
	var cred *unix.Ucred
	err := net.ErrClosed
	c.control(func(fd int) { cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil {
		return Caller{}, fmt.Errorf("reading the peer's credentials: %w", err)
	}
	return Caller{cred.Uid, cred.Gid, cred.Pid}, nil
}

// IsIdentified reports whether the kernel reported the real uid of the caller. All callers with
// unmapped uids have the UID schema.UnmappedUID, so the broker must refuse this UID even if allow_uids
// contains it. But a PID of 0 is no reason to refuse a caller. If the broker runs in a container,
// all callers outside of this container have PID 0.
func (c Caller) IsIdentified() bool { return c.UID != schema.UnmappedUID }

// Event returns the fields that describe the caller in an audit event.
func (c Caller) Event() schema.EventCaller {
	return schema.EventCaller{PeerUID: c.UID, PeerGID: c.GID, PeerPID: c.PID}
}
