package endpoint

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// errDescriptors means that a client passed file descriptors (SCM_RIGHTS, unix(7)).
var errDescriptors = errors.New("a client must not pass file descriptors")

// sendBuffer limits the unread answers of one connection in the kernel, in bytes. The
// kernel doubles this number. So the unread answers of the 64 connections of a project
// use about 2 MiB at most.
const sendBuffer = 16 << 10

// writableBytes is the largest memory of unread answers with which a socket is writable, in
// bytes. For the kernel, a socket is writable if at most a quarter of its send buffer is
// used.
const writableBytes = 2 * sendBuffer / 4

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
	maxLineInterval = 250 * time.Millisecond
)

// maxBusyReads is the number of reads without a wait after which a session lets other sessions
// run. If a client sends requests faster than the broker answers them, the session of this
// client never waits for an event.
const maxBusyReads = 8

// wakesUnit is the size of a part of a request, in bytes. The client may cause maxWakes events
// for each part.
const wakesUnit = 16 << 10

// A conn is a connection that never receives file descriptors.
//
// If the kernel does not refuse passed file descriptors, a normal read closes a passed file
// on the thread that reads. If the file is a TCP socket with unsent data and SO_LINGER, the
// client can block that thread for any time. The number of threads of the broker is
// limited, so many blocked threads would end the broker. So a conn first looks at the data
// without reading it. If file descriptors were passed with the data, Read fails, and the
// file descriptors stay in the socket. An interruptingCloser then closes the socket.
type conn struct {
	*socket
	mustPeek bool     // the kernel does not refuse file descriptors
	deadline deadline // of Read and await

	// Only the goroutine that reads uses these fields.
	lineBytes   int // number of bytes that were read since beginLine
	readBackoff backoff
	busyReads   int                // number of reads since await last waited for an event
	try         func(fd int) error // argument of await
	tryErr      error              // result of the last call of try
	checkInput  func(fd int) bool  // c.tryAndPrepare, stored here because it would be allocated for each call

	// Only the goroutine that sends uses these fields.
	pieces   [][]byte         // argument of send
	sent     int              // result of send
	sendErr  error            // result of send
	sendOnce func(fd uintptr) // c.sendPieces, stored here because it would be allocated for each call
	unread   int              // an upper limit of unreadBytes

	awaitsInput bool // a goroutine of AwaitInput waits for events
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
		if mustPeek = err != nil || value != 0; mustPeek {
			// Without SO_OOBINLINE, a peek would not see out-of-band data.
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
		}
	}); err != nil {
		return nil, err
	}
	// If the buffer size cannot be set, refuse the connection, because unread answers would
	// not be limited.
	if err := c.SetWriteBuffer(sendBuffer); err != nil {
		return nil, err
	}
	conn := &conn{socket: newSocket(c, raw, calls), mustPeek: mustPeek, deadline: deadline{conn: c}}
	conn.checkInput, conn.sendOnce = conn.tryAndPrepare, conn.sendPieces
	return conn, nil
}

// Read reads data. If the client passed file descriptors, the error is errDescriptors.
func (c *conn) Read(p []byte) (n int, err error) {
	err = c.await(func(fd int) (err error) {
		n, err = c.receive(fd, p)
		return err
	})
	return n, err
}

// await calls try again and again until the result is not EAGAIN, and returns this result.
// Before that, await can also return the error os.ErrDeadlineExceeded, io.EOF if the client
// has shut down its reading side, or net.ErrClosed. The function try must read with receive.
func (c *conn) await(try func(fd int) error) error {
	c.try = try
	for c.inPoller() {
		switch err := c.waitForEvents(c.checkInput); {
		case err == nil:
			if c.checks > 1 {
				c.busyReads = 0
			} else if c.busyReads++; c.busyReads%maxBusyReads == 0 {
				runtime.Gosched()
			}
			return c.tryErr
		case err == errTooManyWakes:
			if err := c.leavePoller(); err != nil {
				return err
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			if c.deadline.removeTimer(); c.deadline.isPast() {
				return os.ErrDeadlineExceeded
			}
		case c.inPoller():
			return err
		}
		// The wait also ends with an error if another goroutine removes the connection
		// from the poller. In this case, the loop below continues.
	}
	for {
		// Sleep before each attempt. Otherwise a client that sends many small pieces could
		// make the broker read each piece separately.
		longest := maxIdleInterval
		if c.lineBytes > 0 {
			longest = maxLineInterval
		}
		c.readBackoff.sleep(minReadInterval, longest)
		if c.deadline.isPast() {
			return os.ErrDeadlineExceeded
		}
		if c.stoppedReading.Load() {
			return io.EOF // the client could not read an answer
		}
		err := net.ErrClosed
		c.control(func(fd int) {
			if err = try(fd); err == unix.EAGAIN && c.clientStoppedReading(fd) {
				err = io.EOF
			}
		})
		if err != unix.EAGAIN {
			return err
		}
	}
}

// tryAndPrepare calls try. If the result is EAGAIN, tryAndPrepare prepares to wait for the next
// event.
func (c *conn) tryAndPrepare(fd int) (done bool) {
	if c.tryErr = c.try(fd); c.tryErr != unix.EAGAIN {
		return true
	}
	// Call clientStoppedReading only if there are more events than usual, because it needs a
	// system call. A client that calls shutdown(2) again and again causes more events.
	if c.wakes.Load() > expectedWakes && c.clientStoppedReading(fd) {
		c.tryErr = io.EOF
		return true
	}
	c.deadline.startTimer()
	return false
}

// awaitEvent waits until there are data, another event happens, or the timer expires.
func (c *conn) awaitEvent() {
	c.waitForEvents(func(fd int) (done bool) {
		return c.checks > 1 || pollNow(fd, unix.POLLIN) != 0
	}) // after an error, the session tries to read and gets the same error
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
		n, err = unix.Read(fd, p) // does not wait, because the Go runtime has set O_NONBLOCK
	}
	switch {
	case len(p) == 0 || err == nil && n == 0:
		return 0, io.EOF
	case err != nil:
		return 0, err
	}
	if before := c.lineBytes / wakesUnit; (c.lineBytes+n)/wakesUnit > before {
		c.resetWakes() // a large request arrives in many pieces, and each piece is an event
	}
	c.lineBytes += n
	return n, nil
}

// beginLine must be called before the first read of each request line.
func (c *conn) beginLine() {
	c.lineBytes = 0
	c.readBackoff.reset()
}

// send sends as many bytes of the pieces as fit into the send buffer, and returns their
// number. It does not wait. If the send buffer is full, the error is EAGAIN.
func (c *conn) send(pieces [][]byte) (n int, err error) {
	c.pieces, c.sent, c.sendErr = pieces, 0, net.ErrClosed
	c.controlRaw(c.sendOnce)
	c.pieces = nil
	return c.sent, c.sendErr
}

func (c *conn) sendPieces(fd uintptr) {
	for c.sendErr = unix.EINTR; c.sendErr == unix.EINTR; {
		const flags = unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT
		if len(c.pieces) == 1 { // needs no allocation
			c.sent, c.sendErr = unix.SendmsgN(int(fd), c.pieces[0], nil, nil, flags)
		} else {
			c.sent, c.sendErr = unix.SendmsgBuffers(int(fd), c.pieces, nil, nil, flags)
		}
	}
	// Ask the kernel only if the client may have too many unread answers.
	if c.unread += maxMemory(c.sent); c.unread > writableBytes {
		c.unread, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	}
}

// maxMemory returns the memory that the kernel needs at most for a packet of size bytes. This is
// at most twice as much as the data need, and some memory for each packet.
func maxMemory(size int) int { return 2*size + 1024 }

// isWritable reports whether the client has read most of its answers. isWritable also returns
// true if the connection has ended.
func (c *conn) isWritable() bool {
	if c.unread > writableBytes {
		c.unread = c.unreadBytes()
	}
	return c.unread <= writableBytes
}

// patience is how long a socket stays in the poller of the Go runtime while its client does
// not read an answer. The time is long enough for a client that is reading its answer, and
// too short for a client that delays the reading to wake the broker in the meantime.
const patience = 4 * time.Millisecond

// If the socket is in the poller, waitUntilWritable waits until the client has read most of
// its answers. The socket is then writable. The socket leaves the poller if this takes
// longer than patience, because a goroutine that waits for a socket that is not writable
// does not notice most events. Outside the poller, waitUntilWritable returns at once. The
// socket also leaves the poller if the client has ended the connection, or if another
// goroutine waits for events.
func (c *conn) waitUntilWritable() error {
	if !c.inPoller() || c.isWritable() {
		return nil
	}
	if c.awaitsInput {
		return c.leavePoller()
	}
	c.deadline.setTimer(time.Now().Add(patience))
	defer c.deadline.removeTimer()
	ended := false
	err := c.waitForEvents(func(fd int) bool {
		if pollNow(fd, unix.POLLOUT) != 0 {
			return true
		}
		ended = c.clientEnded(fd)
		return ended
	})
	if err != nil || ended {
		return c.leavePoller()
	}
	return nil
}

// hasRoom reports whether the connection is still writable after size more bytes were sent.
func (c *conn) hasRoom(size int) bool {
	if c.unread+maxMemory(size) > writableBytes {
		c.unread = c.unreadBytes()
	}
	return c.unread+maxMemory(size) <= writableBytes
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
