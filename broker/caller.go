package broker

import (
	"fmt"
	"net"
	"os"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// unknownUID is what a uid reads as that has no name in the broker's user
// namespace (user_namespaces(7), overflowuid).
const unknownUID = 65534

// A caller is the process that connected, as it was then (SO_PEERCRED,
// unix(7)). It may have passed its descriptor on since; the mount, not the
// caller, is the capability.
type caller struct {
	uid, gid uint32
	pid      int32 // 0: in a pid namespace that the broker cannot see into
}

func callerOf(conn *net.UnixConn) (caller, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return caller{}, err
	}
	var cred *unix.Ucred
	if controlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); controlErr != nil {
		return caller{}, controlErr
	}
	if err != nil {
		return caller{}, fmt.Errorf("reading the peer's credentials: %w", err)
	}
	return caller{cred.Uid, cred.Gid, cred.Pid}, nil
}

// ourselves is the daemon, where it acts on what is declared.
func ourselves() caller {
	return caller{uint32(os.Geteuid()), uint32(os.Getegid()), int32(os.Getpid())}
}

// known reports whether the kernel could name the caller. A uid list must not
// match one it could not, because every stranger looks like that.
func (c caller) known() bool { return c.pid != 0 && c.uid != unknownUID }

func (c caller) event() schema.EventCaller {
	return schema.EventCaller{PeerUID: c.uid, PeerGID: c.gid, PeerPID: c.pid}
}
