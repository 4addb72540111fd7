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

// sendBuffer is the size of the send buffer that the broker requests for each connection, in
// bytes. The kernel doubles this number. So the unread answers of a connection use at most about
// 32 KiB of the kernel's memory, and those of a project's 64 connections about 2 MiB.
const sendBuffer = 16 << 10

// writableBytes is the largest number of bytes that the unread answers of a socket may use while
// the kernel still reports the socket as writable. This is a quarter of the send buffer.
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

// While a connection is outside the poller of the Go runtime (see socket), the broker tries to
// read again and again. The time between two attempts begins with minReadInterval and doubles. It
// is at most maxIdleInterval before the first byte of a request has arrived, and at most
// maxLineInterval after the first byte.
const (
	minReadInterval = time.Millisecond
	maxIdleInterval = 10 * time.Millisecond
	maxLineInterval = 250 * time.Millisecond
)

// maxBusyReads is the number of reads without a wait after which a session lets other sessions
// run. If a client sends requests faster than the broker answers them, the session of this client
// never waits for an event, and could delay other sessions.
const maxBusyReads = 8

// wakesUnit is the size of a part of a request, in bytes. The client may cause maxWakes events
// for each part, so a large request may cause more events than a small one.
const wakesUnit = 16 << 10

// A conn is a connection that never receives file descriptors.
//
// If the kernel does not refuse passed file descriptors, a normal read makes the kernel close
// each passed file on the thread that reads. If this file is a TCP socket with unsent data and
// SO_LINGER, the close can block the thread for as long as the client wants. The number of
// threads of the broker is limited, so many blocked threads would end the broker. So if the
// kernel may accept passed file descriptors, a conn peeks at the data before it reads them. If
// file descriptors were passed with the data, Read fails, and the file descriptors stay in the
// socket. An interruptingCloser then closes the socket.
type conn struct {
	*socket
	mustPeek bool     // the kernel may accept passed file descriptors, so receive must peek before it reads
	deadline deadline // when Read and await must return os.ErrDeadlineExceeded

	// Only the goroutine that reads uses the following fields.
	lineBytes   int // number of bytes that were read since beginLine
	readBackoff backoff
	busyReads   int                // number of reads since await last waited for an event
	try         func(fd int) error // argument of await
	tryErr      error              // result of the last call of try
	checkInput  func(fd int) bool  // c.tryAndPrepare, stored here so that await allocates no memory

	// Only the goroutine that sends uses the following fields.
	pieces   [][]byte         // argument of send
	sent     int              // result of send
	sendErr  error            // result of send
	sendOnce func(fd uintptr) // c.sendPieces, stored here so that send does not allocate it again
	unread   int              // upper limit of the result of unreadBytes

	awaitsInput bool // true between Session.AwaitInput and its stop function, because a goroutine then waits for data
}

func newConn(c *net.UnixConn, calls *systemCalls) (*conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	mustPeek := true
	if err := raw.Control(func(fd uintptr) {
		// A connection inherits SO_PASSRIGHTS from its listener when the client connects. If the
		// client connected before this broker called refuseDescriptors for the listener, the
		// kernel may accept passed file descriptors on this connection.
		value, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSRIGHTS)
		if mustPeek = err != nil || value != 0; mustPeek {
			// Without SO_OOBINLINE, a peek would not see out-of-band data, with which a client
			// can pass file descriptors too.
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
		}
	}); err != nil {
		return nil, err
	}
	// If the size of the send buffer cannot be set, refuse the connection, because its unread
	// answers could use more memory than planned.
	if err := c.SetWriteBuffer(sendBuffer); err != nil {
		return nil, err
	}
	conn := &conn{socket: newSocket(c, raw, calls), mustPeek: mustPeek, deadline: deadline{conn: c}}
	conn.checkInput, conn.sendOnce = conn.tryAndPrepare, conn.sendPieces
	return conn, nil
}

// Read waits for data and reads them. If the client passed file descriptors with the data, the
// error is errDescriptors. After the last byte from the client, the error is io.EOF. Read also
// returns the errors of await.
func (c *conn) Read(p []byte) (n int, err error) {
	err = c.await(func(fd int) (err error) {
		n, err = c.receive(fd, p)
		return err
	})
	return n, err
}

// await calls try, which must read with receive. While the result is EAGAIN, await waits and then
// calls try again. It returns the first other result, which can be nil. It can return earlier
// with os.ErrDeadlineExceeded, with io.EOF if the client has shut down its reading side, or with
// another error if the connection is closed or cannot leave the poller.
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
		// The wait also ends with an error if another goroutine removes the connection from the
		// poller. In this case, continue with the loop below.
	}
	for {
		// Sleep before each attempt to read. Otherwise a client that sends many small pieces
		// could make the broker read each piece separately.
		longest := maxIdleInterval
		if c.lineBytes > 0 {
			longest = maxLineInterval
		}
		c.readBackoff.sleep(minReadInterval, longest)
		if c.deadline.isPast() {
			return os.ErrDeadlineExceeded
		}
		if c.stoppedReading.Load() {
			return io.EOF // the client has shut down its reading side, so it could not read an answer
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
	// The call of clientStoppedReading needs a system call. So call it only if there were more
	// events than a normal client causes. A client that calls shutdown(2) again and again causes
	// more events.
	if c.wakes.Load() > expectedWakes && c.clientStoppedReading(fd) {
		c.tryErr = io.EOF
		return true
	}
	c.deadline.startTimer()
	return false
}

// awaitEvent waits until there are data, another event happens, or the timer of c.deadline
// expires.
func (c *conn) awaitEvent() {
	c.waitForEvents(func(fd int) (done bool) {
		return c.checks > 1 || pollNow(fd, unix.POLLIN) != 0
	}) // ignore an error, because the session then calls await, which handles it
}

// receive reads data without waiting. If there are no data yet, the error is EAGAIN. If no more
// data will arrive, the error is io.EOF.
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
		// The peek has found no file descriptor with the first n bytes, so read only these bytes.
		// File descriptors may have arrived with later bytes.
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
	// A large request usually arrives in many pieces, and each piece is an event. So count the
	// events of each part of wakesUnit bytes separately.
	if before := c.lineBytes / wakesUnit; (c.lineBytes+n)/wakesUnit > before {
		c.resetWakes()
	}
	c.lineBytes += n
	return n, nil
}

// beginLine prepares the connection for the next request line. It must be called before the first
// read of this line.
func (c *conn) beginLine() {
	c.lineBytes = 0
	c.readBackoff.reset()
}

// send sends as many bytes of the pieces as fit into the send buffer, and returns the number of
// these bytes. It does not wait for the client. If the send buffer is full, the error is EAGAIN.
func (c *conn) send(pieces [][]byte) (n int, err error) {
	c.pieces, c.sent, c.sendErr = pieces, 0, net.ErrClosed
	c.controlRaw(c.sendOnce)
	c.pieces = nil
	return c.sent, c.sendErr
}

func (c *conn) sendPieces(fd uintptr) {
	for c.sendErr = unix.EINTR; c.sendErr == unix.EINTR; {
		if len(c.pieces) == 1 { // Write costs less than SendmsgBuffers, and allocates no memory
			c.sent, c.sendErr = unix.Write(int(fd), c.pieces[0]) // does not wait, because the Go runtime has set O_NONBLOCK
		} else {
			const flags = unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT
			c.sent, c.sendErr = unix.SendmsgBuffers(int(fd), c.pieces, nil, nil, flags)
		}
	}
	// c.unread is an upper limit. Ask the kernel for the exact number only if the socket is possibly
	// not writable.
	if c.unread += maxMemory(c.sent); c.unread > writableBytes {
		c.unread, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	}
}

// maxMemory returns an upper limit of the memory that the kernel needs for one send of size bytes.
// The kernel needs at most twice the size of the data, and less than 1024 additional bytes.
func maxMemory(size int) int { return 2*size + 1024 }

// isWritable reports whether the socket is writable, which means that the client has read most of
// its answers (see writableBytes). isWritable also returns true if the connection has ended.
func (c *conn) isWritable() bool {
	if c.unread > writableBytes {
		c.unread = c.unreadBytes()
	}
	return c.unread <= writableBytes
}

// patience is how long a socket that is not writable stays in the poller of the Go runtime. The
// time is long enough for a client that reads its answers at once. It is short because the client
// can wake the broker again and again during this time.
const patience = 4 * time.Millisecond

// waitUntilWritable waits until a socket in the poller is writable. If the socket is outside the
// poller, waitUntilWritable returns at once.
//
// In these cases, waitUntilWritable calls leavePoller and returns its error:
//
//   - The wait takes longer than patience. While a socket is not writable, the broker does not
//     notice most events (see socket).
//   - The client shuts down a direction of the connection, or causes too many events.
//   - The goroutine of Session.AwaitInput already waits for events.
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

// hasRoom reports whether the socket would still be writable after the broker has sent size more
// bytes.
func (c *conn) hasRoom(size int) bool {
	if c.unread+maxMemory(size) > writableBytes {
		c.unread = c.unreadBytes()
	}
	return c.unread+maxMemory(size) <= writableBytes
}

// mayHoldDescriptors reports whether passed file descriptors can be in the socket. This is the case
// if the kernel may accept them, and if the socket contains data that the broker has not read. If
// the kernel may accept file descriptors, mayHoldDescriptors first shuts down the broker's reading
// side, so that no more data arrive.
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

// unreadBytes returns how much memory the kernel uses for answers that the client has not read,
// in bytes (SIOCOUTQ, unix(7)). The result is 0 if the client has read all answers, or if one
// side has closed the connection.
func (c *conn) unreadBytes() (n int) {
	c.control(func(fd int) { n, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ) })
	return n
}
