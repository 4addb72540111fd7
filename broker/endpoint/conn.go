package endpoint

import (
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// errDescriptors means that a client passed descriptors (SCM_RIGHTS, unix(7)).
var errDescriptors = errors.New("a client must not pass file descriptors")

// sendBuffer limits the bytes of unread answers of one connection in the kernel. The
// kernel doubles the number. 64 connections of a project then hold at most 2 MiB.
const sendBuffer = 16 << 10

// refuseDescriptors makes the kernel refuse descriptors that clients pass, for every
// later connection of a listener. Before Linux 6.16, the kernel has no such option
// (SO_PASSRIGHTS), and the call has no effect.
func refuseDescriptors(listener *net.UnixListener) {
	if raw, err := listener.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
		})
	}
}

// A conn is a connection that never receives descriptors.
//
// If the kernel cannot refuse them, a plain read would drop the last reference to a
// passed file on the reading thread. A TCP socket with unsent data and SO_LINGER then
// blocks that thread for as long as the client likes, and a few hundred such threads
// end the process. So a conn looks at its data first, and fails if there are
// descriptors with the data. The descriptors stay in the socket, and a closer closes
// the socket.
type conn struct {
	*net.UnixConn
	raw      syscall.RawConn
	mustPeek bool // the kernel does not refuse descriptors
}

func newConn(c *net.UnixConn) (*conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	mustPeek := true
	if err := raw.Control(func(fd uintptr) {
		// A connection has the option of its listener at the time of its connect. The
		// listener of an earlier broker may not have had the option then.
		value, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSRIGHTS)
		mustPeek = err != nil || value != 0
		// Out-of-band data would be invisible to a peek.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	}); err != nil {
		return nil, err
	}
	// The limit on unread answers must hold even if this fails, which the kernel
	// does not document as possible.
	if err := c.SetWriteBuffer(sendBuffer); err != nil {
		return nil, err
	}
	return &conn{UnixConn: c, raw: raw, mustPeek: mustPeek}, nil
}

// Read reads data, or returns errDescriptors.
func (c *conn) Read(p []byte) (int, error) {
	if !c.mustPeek {
		return c.UnixConn.Read(p)
	}
	n, err := c.peek(p)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	// Peeking stops at the first descriptor, so there are none with the first n bytes.
	return c.UnixConn.Read(p[:n])
}

// peek waits for data and copies it to p without removing it from the socket.
func (c *conn) peek(p []byte) (n int, err error) {
	var flags int
	readErr := c.raw.Read(func(fd uintptr) bool {
		n, _, flags, _, err = unix.Recvmsg(int(fd), p, nil, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN && err != unix.EINTR
	})
	if readErr != nil {
		return 0, readErr
	}
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		return 0, errDescriptors
	}
	return n, err
}

// mayHoldDescriptors reports whether the socket may contain data with descriptors. It
// first makes the kernel refuse more data from the client.
func (c *conn) mayHoldDescriptors() bool {
	if !c.mustPeek {
		return false
	}
	c.CloseRead()
	unread := true
	c.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		unread = err == nil && n > 0
	})
	return unread
}

// unreadBytes returns how much memory the kernel uses for answers that the client has
// not read (SIOCOUTQ, unix(7)). It is 0 once the client has read them, or has closed
// its end.
func (c *conn) unreadBytes() (n int) {
	c.raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return n
}
