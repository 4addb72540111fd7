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

// A conn is a connection that never receives file descriptors.
//
// If the kernel does not refuse passed file descriptors, a normal read closes a passed file
// on the thread that reads. If the file is a TCP socket with unsent data and SO_LINGER, the
// client can block that thread for any time. A few hundred blocked threads would end the
// broker. So a conn first looks at the data without reading it. If file descriptors were
// passed with the data, Read fails, and the file descriptors stay in the socket. An
// interruptingCloser then closes the socket.
//
// While a connection is in the poller of the Go runtime, each shutdown(2) call of the
// client wakes the broker. So a conn can leave the poller.
type conn struct {
	*net.UnixConn
	mustPeek    bool        // the kernel does not refuse file descriptors
	writeClosed atomic.Bool // CloseWrite was called

	lineReads, lineBytes int // numbers of reads and of bytes since beginLine

	mu                          sync.Mutex      // no other lock is locked while mu is locked
	raw                         syscall.RawConn // guarded by mu
	file                        *os.File        // guarded by mu; nil before leavePoller, then replaces UnixConn
	readDeadline, writeDeadline time.Time       // guarded by mu
}

// pollInterval is the time between two checks of a connection that has left the poller.
const pollInterval = 10 * time.Millisecond

// lineReads is the number of reads in which a request line may arrive. One more read is
// allowed for each KiB of the line. If a client sends smaller pieces, the connection leaves
// the poller.
const lineReads = 64

func newConn(c *net.UnixConn) (*conn, error) {
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
	return &conn{UnixConn: c, raw: raw, mustPeek: mustPeek}, nil
}

// Read reads data. If the client passed file descriptors, the error is errDescriptors.
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
		// The peek stops before the first passed file descriptor. So no file descriptor
		// belongs to the first n bytes.
		p = p[:n]
	}
	if file != nil {
		n, err = file.Read(p)
		c.lineBytes += n
		return n, err
	}
	n, err = c.UnixConn.Read(p)
	c.lineReads, c.lineBytes = c.lineReads+1, c.lineBytes+n
	if err == nil && c.lineReads > lineReads+c.lineBytes>>10 {
		err = c.leavePoller()
	}
	return n, err
}

// beginLine resets the counts of reads and bytes. It must be called before the first read
// of each request line.
func (c *conn) beginLine() { c.lineReads, c.lineBytes = 0, 0 }

// SetReadDeadline sets the deadline of Read. The deadline also applies after the connection
// has left the poller.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.readDeadline = t
	c.mu.Unlock()
	return c.UnixConn.SetReadDeadline(t)
}

// SetWriteDeadline sets the time at which a blocked write of a session fails.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.writeDeadline = t
	c.mu.Unlock()
	return c.UnixConn.SetWriteDeadline(t)
}

// SetDeadline sets the read deadline and the write deadline.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// isPast reports whether a deadline is set and has passed. deadline must point to a field
// of c, which isPast reads while mu is locked.
func (c *conn) isPast(deadline *time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !deadline.IsZero() && !time.Now().Before(*deadline)
}

// current returns the raw connection, and the file that replaces the UnixConn. The file is
// nil if the connection has not left the poller.
func (c *conn) current() (syscall.RawConn, *os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.raw, c.file
}

// control calls f with the file descriptor of the connection. If the connection is closed,
// control does not call f.
func (c *conn) control(f func(fd int)) {
	raw, _ := c.current()
	raw.Control(func(fd uintptr) { f(int(fd)) })
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

// waitUntilWritable waits until send can send more bytes, at most for the given time. If
// the client reads nothing in this time, the error is os.ErrDeadlineExceeded. If the
// connection has left the poller, waitUntilWritable always waits for pollInterval and
// returns this error.
func (c *conn) waitUntilWritable(atMost time.Duration) error {
	raw, file := c.current()
	if file != nil {
		time.Sleep(pollInterval)
		return os.ErrDeadlineExceeded // the caller tries to send again
	}
	c.UnixConn.SetWriteDeadline(time.Now().Add(atMost))
	return raw.Write(func(fd uintptr) bool { return pollNow(int(fd), unix.POLLOUT) != 0 })
}

func (c *conn) inPoller() bool {
	_, file := c.current()
	return file == nil
}

// clientEndedRequests reports whether the client can send no more requests, because it has
// shut down its writing side or has closed the connection.
func (c *conn) clientEndedRequests() (ended bool) {
	c.control(func(fd int) { ended = pollNow(fd, unix.POLLRDHUP)&(unix.POLLRDHUP|unix.POLLHUP) != 0 })
	return ended
}

// hasInput reports whether a read would return at once, because the client has sent data or
// can send no more data.
func (c *conn) hasInput() (input bool) {
	c.control(func(fd int) { input = pollNow(fd, unix.POLLIN|unix.POLLRDHUP) != 0 })
	return input
}

// pollNow returns the current poll(2) events of a file descriptor, without waiting.
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

// CloseWrite shuts down the broker's writing side. The client can still read all answers,
// and then reaches the end of the connection.
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

// leavePoller removes the connection from the poller of the Go runtime, if the connection
// is in the poller. The runtime then no longer enforces deadlines for the connection, so
// Read and Session.waitUntilWritable check the deadlines themselves.
func (c *conn) leavePoller() (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil {
		return nil
	}
	fd := -1
	if controlErr := c.raw.Control(func(current uintptr) {
		if fd, err = unix.FcntlInt(current, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(fd, false) // os.NewFile would add a non-blocking file to the poller
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
	c.UnixConn.Close() // cannot block, because file still has the socket open
	c.file, c.raw = file, raw
	return nil
}

// clientStoppedReading reports whether the client has shut down only its reading side
// (SHUT_RD, shutdown(2)). Such a client can read no more answers.
func (c *conn) clientStoppedReading() (stopped bool) {
	c.control(func(fd int) {
		// A send of zero bytes sends nothing. It fails with EPIPE if the client has shut down
		// its reading side, and also if the client has closed the connection.
		stopped = unix.Sendto(fd, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, nil) == unix.EPIPE &&
			pollNow(fd, unix.POLLRDHUP)&(unix.POLLRDHUP|unix.POLLHUP) == 0
	})
	return stopped && !c.writeClosed.Load()
}

// mayHoldDescriptors reports whether the socket may contain unread data with passed file
// descriptors. Before it looks, it makes the kernel refuse further data from the client.
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
