package endpoint

import (
	"fmt"
	"net"
	"os"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// UnmappedUID is the uid that the kernel reports for a uid without a mapping in
// the broker's user namespace (user_namespaces(7), overflowuid).
const UnmappedUID = 65534

// A Caller is the process that connected, as it was at that time (SO_PEERCRED,
// unix(7)). It may have passed its descriptor to another process since. The mount
// of the socket is the capability, not the caller.
type Caller struct {
	UID, GID uint32
	PID      int32 // 0: in a pid namespace that the broker cannot see
}

// Self returns the broker itself as a caller, for changes that the broker makes
// because of a declaration.
func Self() Caller {
	return Caller{uint32(os.Geteuid()), uint32(os.Getegid()), int32(os.Getpid())}
}

func callerOf(conn *net.UnixConn) (Caller, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var cred *unix.Ucred
	if controlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); controlErr != nil {
		return Caller{}, controlErr
	}
	if err != nil {
		return Caller{}, fmt.Errorf("reading the peer's credentials: %w", err)
	}
	return Caller{cred.Uid, cred.Gid, cred.Pid}, nil
}

// IsIdentified reports whether the kernel could name the caller's user. If it could
// not, no list of uids may match: all unknown callers have the same uid. A pid of 0 is
// no reason to refuse: for a broker in a container, every caller has it.
func (c Caller) IsIdentified() bool { return c.UID != UnmappedUID }

// Event returns the caller as it is recorded in audit events.
func (c Caller) Event() schema.EventCaller {
	return schema.EventCaller{PeerUID: c.UID, PeerGID: c.GID, PeerPID: c.PID}
}
