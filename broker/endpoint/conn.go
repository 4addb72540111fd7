package endpoint

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

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
//
// While a connection is in the poller of the Go runtime, each shutdown(2) of the client
// wakes the broker. So a conn can leave the poller.
type conn struct {
	*net.UnixConn
	mustPeek    bool        // the kernel does not refuse descriptors
	writeClosed atomic.Bool // by CloseWrite

	lineReads, lineBytes int // since beginLine

	mu                          sync.Mutex      // no other lock is taken while it is held
	raw                         syscall.RawConn // guarded by mu
	file                        *os.File        // guarded by mu; replaces the UnixConn after leavePoller; otherwise nil
	readDeadline, writeDeadline time.Time       // guarded by mu
}

// pollInterval is how often the broker looks at a connection that has left the poller.
const pollInterval = 10 * time.Millisecond

// A line may arrive in lineReads reads, and in one more for each KiB. A client that sends
// less at a time makes the connection leave the poller.
const lineReads = 64

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
func (c *conn) Read(p []byte) (n int, err error) {
	_, file := c.current()
	for file != nil && !c.hasInput() {
		if c.isPast(&c.readDeadline) {
			return 0, os.ErrDeadlineExceeded
		}
		time.Sleep(pollInterval)
	}
	if c.mustPeek {
		n, err := c.peek(p)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, io.EOF
		}
		// Peeking stops at the first descriptor, so there are none with the first n bytes.
		p = p[:n]
	}
	if file != nil {
		return file.Read(p)
	}
	n, err = c.UnixConn.Read(p)
	c.lineReads, c.lineBytes = c.lineReads+1, c.lineBytes+n
	if err == nil && c.lineReads > lineReads+c.lineBytes>>10 {
		err = c.leavePoller()
	}
	return n, err
}

// beginLine must be called before the first read of a line.
func (c *conn) beginLine() { c.lineReads, c.lineBytes = 0, 0 }

// SetReadDeadline sets the deadline of Read, also for a connection that has left the
// poller.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.readDeadline = t
	c.mu.Unlock()
	return c.UnixConn.SetReadDeadline(t)
}

// SetWriteDeadline sets the end of all waits in waitUntilWritable.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.writeDeadline = t
	c.mu.Unlock()
	return c.UnixConn.SetWriteDeadline(t)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// isPast reports whether one of the deadlines has ended.
func (c *conn) isPast(deadline *time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !deadline.IsZero() && !time.Now().Before(*deadline)
}

// current returns the raw connection, and the file if the conn has left the poller.
func (c *conn) current() (syscall.RawConn, *os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.raw, c.file
}

// control calls f with the descriptor of the connection, if the connection is open.
func (c *conn) control(f func(fd int)) {
	raw, _ := c.current()
	raw.Control(func(fd uintptr) { f(int(fd)) })
}

// send sends some bytes of the pieces, and returns their number. It does not wait: if there
// is no room, the error is EAGAIN.
func (c *conn) send(pieces [][]byte) (n int, err error) {
	err = net.ErrClosed
	c.control(func(fd int) {
		for err = unix.EINTR; err == unix.EINTR; {
			n, err = unix.SendmsgBuffers(fd, pieces, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		}
	})
	return n, err
}

// waitUntilWritable waits until send can send more, at most for the given time. If the
// client has read nothing by then, the error is os.ErrDeadlineExceeded.
func (c *conn) waitUntilWritable(atMost time.Duration) error {
	raw, file := c.current()
	if file != nil {
		time.Sleep(pollInterval)
		return os.ErrDeadlineExceeded // send again
	}
	c.UnixConn.SetWriteDeadline(time.Now().Add(atMost))
	return raw.Write(func(fd uintptr) bool { return pollNow(int(fd), unix.POLLOUT) != 0 })
}

func (c *conn) inPoller() bool {
	_, file := c.current()
	return file == nil
}

// clientEndedRequests reports whether the client has shut down its writing side, or has
// closed the connection.
func (c *conn) clientEndedRequests() (ended bool) {
	c.control(func(fd int) { ended = pollNow(fd, unix.POLLRDHUP)&(unix.POLLRDHUP|unix.POLLHUP) != 0 })
	return ended
}

// hasInput reports whether a read returns at once: there is data, or the end.
func (c *conn) hasInput() (input bool) {
	c.control(func(fd int) { input = pollNow(fd, unix.POLLIN|unix.POLLRDHUP) != 0 })
	return input
}

// pollNow returns the events of a descriptor, without waiting.
func pollNow(fd int, events int16) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	unix.Poll(fds, 0) // after an error, there are no events
	return fds[0].Revents
}

// peek waits for data and copies it to p without removing it from the socket.
func (c *conn) peek(p []byte) (n int, err error) {
	var flags int
	raw, _ := c.current()
	readErr := raw.Read(func(fd uintptr) bool {
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

// CloseWrite shuts down the writing side: the client sees the end after the answers.
func (c *conn) CloseWrite() error {
	c.writeClosed.Store(true)
	return c.UnixConn.CloseWrite()
}

// Close closes the connection.
func (c *conn) Close() error {
	if _, file := c.current(); file != nil {
		return file.Close()
	}
	return c.UnixConn.Close()
}

// leavePoller removes the connection from the poller of the Go runtime, if it is there.
// Afterwards, deadlines have no effect, and a read fails if there is no data.
func (c *conn) leavePoller() (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil {
		return nil
	}
	fd := -1
	if controlErr := c.raw.Control(func(current uintptr) {
		if fd, err = unix.FcntlInt(current, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(fd, false) // os.NewFile adds a non-blocking file to the poller
		}
	}); controlErr != nil {
		return controlErr
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	file := os.NewFile(uintptr(fd), "connection")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return err
	}
	c.UnixConn.Close() // this is not the last descriptor, so this does not block
	c.file, c.raw = file, raw
	return nil
}

// clientStoppedReading reports whether the client has shut down its reading side only
// (SHUT_RD, shutdown(2)). It can then read no answer.
func (c *conn) clientStoppedReading() (stopped bool) {
	c.control(func(fd int) {
		// Sending zero bytes sends nothing, and fails if the client does not read. The error
		// is the same if the client has closed the connection.
		stopped = unix.Sendto(fd, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, nil) == unix.EPIPE &&
			pollNow(fd, unix.POLLRDHUP)&(unix.POLLRDHUP|unix.POLLHUP) == 0
	})
	return stopped && !c.writeClosed.Load()
}

// mayHoldDescriptors reports whether the socket may contain data with descriptors. It
// first makes the kernel refuse more data from the client.
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

// unreadBytes returns how much memory the kernel uses for answers that the client has
// not read (SIOCOUTQ, unix(7)). It is 0 once the client has read them, or has closed
// its end.
func (c *conn) unreadBytes() (n int) {
	c.control(func(fd int) { n, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ) })
	return n
}
