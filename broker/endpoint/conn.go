package endpoint

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// errDescriptors means that a client passed file descriptors (SCM_RIGHTS, unix(7)).
var errDescriptors = errors.New("a client must not pass file descriptors")

// sendBuffer limits the unread answers of one connection in the kernel, in bytes. The
// kernel doubles this number. So the 64 connections of a project use at most 2 MiB.
const sendBuffer = 16 << 10

// refuseDescriptors makes the kernel refuse passed file descriptors on all later
// connections of a listener. The option SO_PASSRIGHTS exists since Linux 6.16. On an older
// kernel, refuseDescriptors has no effect.
func refuseDescriptors(listener *net.UnixListener) {
	if raw, err := listener.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
		})
	}
}

// While a connection is outside the poller (see socket), the broker tries to read again and
// again. The time between two attempts begins with minReadInterval. It is at most
// maxIdleInterval before the first byte of a request, and at most maxLineInterval after that.
const (
	minReadInterval = time.Millisecond
	maxIdleInterval = 10 * time.Millisecond
	maxLineInterval = 100 * time.Millisecond
)

// A conn is a connection that never receives file descriptors.
//
// If the kernel does not refuse passed file descriptors, a normal read closes a passed file
// on the thread that reads. If the file is a TCP socket with unsent data and SO_LINGER, the
// client can block that thread for any time. A few hundred blocked threads would end the
// broker. So a conn first looks at the data without reading it. If file descriptors were
// passed with the data, Read fails, and the file descriptors stay in the socket. An
// interruptingCloser then closes the socket.
type conn struct {
	*socket
	mustPeek bool // the kernel does not refuse file descriptors

	// Only the goroutine that reads uses these fields.
	lineBytes   int // number of bytes that were read since beginLine
	readBackoff backoff

	mu                          sync.Mutex // no other lock is locked while mu is locked
	readDeadline, writeDeadline time.Time  // guarded by mu
}

func newConn(c *net.UnixConn, calls *systemCalls) (*conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	mustPeek := true
	if err := raw.Control(func(fd uintptr) {
		// A connection inherits SO_PASSRIGHTS from its listener when the client connects. If
		// the client connected while an earlier broker was running, the listener may not have
		// had this option yet.
		value, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSRIGHTS)
		mustPeek = err != nil || value != 0
		// Without SO_OOBINLINE, a peek would not see out-of-band data.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	}); err != nil {
		return nil, err
	}
	// If the buffer size cannot be set, refuse the connection, because unread answers would
	// not be limited.
	if err := c.SetWriteBuffer(sendBuffer); err != nil {
		return nil, err
	}
	return &conn{socket: newSocket(c, raw, calls), mustPeek: mustPeek}, nil
}

// Read reads data. If the client passed file descriptors, the error is errDescriptors.
func (c *conn) Read(p []byte) (n int, err error) {
	defer func() { c.lineBytes += n }()
	if c.inPoller() {
		waitErr := c.raw.Read(func(fd uintptr) bool {
			c.calls.do(func() { n, err = c.receive(int(fd), p) })
			return err != unix.EAGAIN
		})
		switch {
		case waitErr == nil:
			return n, err
		case c.inPoller():
			return 0, waitErr
		}
		// The connection left the poller, which ended the wait.
	}
	for {
		// Sleep before each attempt. Otherwise a client that sends many small pieces could
		// make the broker read each piece separately.
		longest := maxIdleInterval
		if c.lineBytes > 0 {
			longest = maxLineInterval
		}
		c.readBackoff.sleep(minReadInterval, longest)
		if c.isPast(&c.readDeadline) {
			return 0, os.ErrDeadlineExceeded
		}
		if c.stoppedReading.Load() {
			return 0, io.EOF // the client could not read an answer
		}
		err = net.ErrClosed
		c.control(func(fd int) { n, err = c.receive(fd, p) })
		if err != unix.EAGAIN {
			return n, err
		}
	}
}

// receive reads data without waiting. If there are no data, the error is EAGAIN.
func (c *conn) receive(fd int, p []byte) (n int, err error) {
	if c.mustPeek {
		var flags int
		for err = unix.EINTR; err == unix.EINTR; {
			n, _, flags, _, err = unix.Recvmsg(fd, p, nil, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		}
		switch {
		case err != nil:
			return 0, err
		case flags&unix.MSG_CTRUNC != 0:
			return 0, errDescriptors
		}
		// The peek stops before the first passed file descriptor. So no file descriptor
		// belongs to the first n bytes.
		p = p[:n]
	}
	for err = unix.EINTR; err == unix.EINTR && len(p) > 0; {
		n, _, err = unix.Recvfrom(fd, p, unix.MSG_DONTWAIT)
	}
	switch {
	case len(p) == 0 || err == nil && n == 0:
		return 0, io.EOF
	case err != nil:
		return 0, err
	}
	return n, nil
}

// beginLine must be called before the first read of each request line.
func (c *conn) beginLine() {
	c.lineBytes = 0
	c.readBackoff.reset()
	c.resetWakes()
}

// setReadDeadline sets the deadline of Read.
func (c *conn) setReadDeadline(t time.Time) {
	c.mu.Lock()
	c.readDeadline = t
	c.mu.Unlock()
	c.socket.conn.SetReadDeadline(t) // fails if the socket is outside the poller
}

// setWriteDeadline sets the time at which a blocked write of a session fails.
func (c *conn) setWriteDeadline(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeDeadline = t
}

// isPast reports whether a deadline is set and has passed. deadline must point to a field
// of c, which isPast reads while mu is locked.
func (c *conn) isPast(deadline *time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !deadline.IsZero() && !time.Now().Before(*deadline)
}

// send sends as many bytes of the pieces as fit into the send buffer, and returns their
// number. It does not wait. If the send buffer is full, the error is EAGAIN.
func (c *conn) send(pieces [][]byte) (n int, err error) {
	err = net.ErrClosed
	c.control(func(fd int) {
		for err = unix.EINTR; err == unix.EINTR; {
			n, err = unix.SendmsgBuffers(fd, pieces, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		}
	})
	return n, err
}

// mayHoldDescriptors reports whether the socket may contain unread data with passed file
// descriptors. Before this check, it makes the kernel refuse further data from the client.
func (c *conn) mayHoldDescriptors() bool {
	if !c.mustPeek {
		return false
	}
	unread := true
	c.control(func(fd int) {
		_ = unix.Shutdown(fd, unix.SHUT_RD)
		var b [1]byte
		n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		unread = err == nil && n > 0
	})
	return unread
}

// unreadBytes returns how much memory the kernel uses for answers that the client has not
// read, in bytes (SIOCOUTQ, unix(7)). The result is 0 if the client has read all answers or
// has closed the connection.
func (c *conn) unreadBytes() (n int) {
	c.control(func(fd int) { n, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ) })
	return n
}
