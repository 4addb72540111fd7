package endpoint

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxWakes is the largest number of events that a client may cause while the broker reads or
// answers one request, or one part of a large request or answer. After more events, the socket
// leaves the poller.
const maxWakes = 16

// expectedWakes is the number of events without data that a normal client causes after an answer.
// The client causes this event when it reads the answer.
const expectedWakes = 1

// errTooManyWakes means that the client has caused more than maxWakes events since resetWakes.
// The socket should then leave the poller.
var errTooManyWakes = errors.New("the client woke the broker too often")

// A backoff sleeps between two checks of a socket that is outside the poller. The time doubles
// with each check, up to a maximum.
type backoff struct{ interval time.Duration }

func (b *backoff) sleep(shortest, longest time.Duration) {
	b.interval = min(max(2*b.interval, shortest), longest)
	time.Sleep(b.interval)
}

func (b *backoff) reset() { b.interval = 0 }

// A socket is the socket of a connection. It limits how often the client can wake the broker.
//
// At first, a socket is in the poller of the Go runtime. There, the client wakes the broker
// whenever the client sends data, reads data, or calls shutdown(2). These events do not count as
// requests. So the socket leaves the poller if its client could wake the broker more often than a
// normal client does, for example if the client causes more than maxWakes events or does not read
// its answers. Outside the poller, the client cannot wake the broker. Instead, the broker checks
// the socket again and again.
//
// In the poller, a goroutine waits for the client only with waitForEvents. This function waits
// until the socket is writable, even if the goroutine wants to read. Only such a wait notices all
// events, because every event of a writable Unix socket also reports that the socket is writable.
// If a goroutine waited for data instead, a client could wake the broker by calling shutdown(2)
// again and again, and the broker could not count these events.
type socket struct {
	calls   *systemCalls
	conn    *net.UnixConn              // in the poller; leavePoller closes it
	raw     syscall.RawConn            // of conn
	outside atomic.Pointer[descriptor] // nil while the socket is in the poller

	wakes          atomic.Int32 // number of times that the client woke the broker since the last call of resetWakes
	writeClosed    atomic.Bool  // CloseWrite was called
	stoppedReading atomic.Bool  // the client has shut down only its reading side

	// Only the goroutine that calls waitForEvents uses the following fields.
	check   func(fd int) (done bool)
	checks  int                   // number of calls of handleEvent: one when the wait begins, and one after each event
	tooMany bool                  // the client has caused too many events
	onEvent func(fd uintptr) bool // s.handleEvent, stored here so that waitForEvents allocates no memory

	mu sync.Mutex // locked by leavePoller
}

func newSocket(conn *net.UnixConn, raw syscall.RawConn, calls *systemCalls) *socket {
	s := &socket{calls: calls, conn: conn, raw: raw}
	s.onEvent = s.handleEvent
	// Start above expectedWakes, so that conn.tryAndPrepare checks after each event without data
	// whether the client has stopped reading. Before the first answer, a normal client causes no
	// event without data.
	s.wakes.Store(expectedWakes + 1)
	return s
}

// waitForEvents calls check at once, and again after each event in the poller, until check
// returns true. Call waitForEvents only if the socket is writable, or if check returns true as soon
// as the socket is writable. Only one goroutine at a time may call waitForEvents.
//
// The error is os.ErrDeadlineExceeded if the write deadline of s.conn has passed,
// errTooManyWakes if the client has caused too many events, and net.ErrClosed if the socket
// has left the poller or is closed.
func (s *socket) waitForEvents(check func(fd int) (done bool)) error {
	s.check, s.checks, s.tooMany = check, 0, false
	err := s.raw.Write(s.onEvent)
	if s.tooMany {
		return errTooManyWakes
	}
	return err
}

// handleEvent is called by the runtime when a wait begins and after each event.
func (s *socket) handleEvent(fd uintptr) (done bool) {
	if s.checks++; s.checks > 1 && s.wakes.Add(1) > maxWakes {
		s.tooMany = true
		return true
	}
	s.calls.begin()
	defer s.calls.end()
	return s.check(int(fd))
}

// resetWakes sets s.wakes to 0. Call it for each answer, and for each part of a large request or
// answer, so that a connection can stay in the poller for any number of requests, and for requests
// and answers of any size.
func (s *socket) resetWakes() { s.wakes.Store(0) }

// clientEnded reports whether the client has shut down one or both directions of the
// connection.
func (s *socket) clientEnded(fd int) bool {
	return pollNow(fd, unix.POLLRDHUP)&(unix.POLLRDHUP|unix.POLLHUP) != 0 || s.clientStoppedReading(fd)
}

// clientStoppedReading reports whether the client has shut down its reading side. If so, it also
// sets s.stoppedReading. Before the call, the calling function must check that the client has not
// shut down its writing side too. After CloseWrite, clientStoppedReading always returns false.
func (s *socket) clientStoppedReading(fd int) bool {
	// A send of zero bytes sends nothing, but fails with EPIPE if the client has shut down its
	// reading side.
	if unix.Sendto(fd, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, nil) == unix.EPIPE && !s.writeClosed.Load() {
		s.stoppedReading.Store(true)
		return true
	}
	return false
}

// pollNow returns the current poll(2) events of a file descriptor, without waiting.
func pollNow(fd int, events int16) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	unix.Poll(fds, 0) // ignore an error, because Revents is then 0
	return fds[0].Revents
}

func (s *socket) inPoller() bool { return s.outside.Load() == nil }

// leavePoller removes the connection from the poller of the Go runtime, unless the connection is
// already outside the poller. The runtime enforces no deadlines for a connection outside the
// poller, so conn.await and sender.waitToSend check the deadlines themselves.
func (s *socket) leavePoller() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.inPoller() {
		return nil
	}
	copied, err, controlErr := -1, error(nil), error(nil)
	s.calls.do(func() {
		controlErr = s.raw.Control(func(fd uintptr) { copied, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	})
	if err = errors.Join(controlErr, err); err != nil {
		return err
	}
	s.outside.Store(&descriptor{fd: copied})
	// The kernel does not delay this call, because the copied file descriptor keeps the socket
	// open. Do not count the call in s.calls: Close waits for the goroutines that use s.conn, and
	// one of them can be waiting for s.calls.
	s.conn.Close()
	return nil
}

// control calls f with the file descriptor of the connection. If the connection is closed,
// control does not call f.
func (s *socket) control(f func(fd int)) { s.controlRaw(func(fd uintptr) { f(int(fd)) }) }

// controlRaw does the same as control, but without an allocation.
func (s *socket) controlRaw(f func(fd uintptr)) {
	s.calls.begin()
	defer s.calls.end()
	if s.inPoller() && s.raw.Control(f) == nil {
		return
	}
	if outside := s.outside.Load(); outside != nil {
		outside.control(f)
	}
}

// CloseWrite shuts down the broker's writing side. The client can still read the answers that the
// broker has already sent, and then reaches the end of the connection.
func (s *socket) CloseWrite() error {
	s.writeClosed.Store(true)
	err := net.ErrClosed
	s.control(func(fd int) { err = unix.Shutdown(fd, unix.SHUT_WR) })
	return err
}

// Close closes the connection. Call Close only when no other goroutine waits for events of the
// connection.
func (s *socket) Close() error {
	if outside := s.outside.Load(); outside != nil {
		return outside.close()
	}
	return s.conn.Close()
}

// A descriptor is the file descriptor of a connection that is outside the poller. The broker uses
// it only for system calls that do not wait for the client.
type descriptor struct {
	mu sync.RWMutex
	fd int // guarded by mu; -1 after close
}

func (d *descriptor) control(f func(fd uintptr)) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.fd >= 0 {
		f(uintptr(d.fd))
	}
}

// close closes the file descriptor on the calling thread, so that an interruptingCloser can
// interrupt the close.
func (d *descriptor) close() error {
	d.mu.Lock()
	fd := d.fd
	d.fd = -1
	d.mu.Unlock()
	if fd < 0 {
		return net.ErrClosed
	}
	return unix.Close(fd)
}
