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

// maxWakes is the number of events with which a client may wake the broker while the broker
// reads or answers one request.
const maxWakes = 16

// patience is how long a socket stays in the poller of the Go runtime while its client does
// not read an answer. The time is long enough for a client that is reading its answer, and
// too short for a client that wants to wake the broker in the meantime.
const patience = 4 * time.Millisecond

// maxWatchInterval is the maximum time until the broker notices that the client of an idle
// socket outside the poller has ended the connection.
const maxWatchInterval = 100 * time.Millisecond

// maxSystemCalls is the maximum number of system calls at the same time for the connections
// of one endpoint. Each system call needs a thread, and the Go runtime never ends a thread.
// The calls do not wait for the client, but the kernel can delay them, for example while it
// searches for free memory. Without this limit, the clients of a few projects could then use
// up the threads that the broker is allowed to have.
const maxSystemCalls = 4

// systemCalls limits the number of system calls at the same time. While fewer than
// maxSystemCalls are running, a call costs two atomic operations.
type systemCalls struct {
	number atomic.Int64  // of calls that are running or waiting
	ended  chan struct{} // receives a value when a call ends and another call is waiting
}

func newSystemCalls() *systemCalls { return &systemCalls{ended: make(chan struct{}, maxSystemCalls)} }

// begin must be called before system calls that do not wait for the client.
func (s *systemCalls) begin() {
	if s.number.Add(1) > maxSystemCalls {
		<-s.ended
	}
}

// end must be called after the system calls.
func (s *systemCalls) end() {
	if s.number.Add(-1) >= maxSystemCalls {
		s.ended <- struct{}{}
	}
}

// do calls f, which makes system calls that do not wait for the client.
func (s *systemCalls) do(f func()) {
	s.begin()
	defer s.end()
	f()
}

// A backoff sleeps between two checks of a socket that is outside the poller. The time doubles
// with each check.
type backoff struct{ interval time.Duration }

func (b *backoff) sleep(shortest, longest time.Duration) {
	b.interval = min(max(2*b.interval, shortest), longest)
	time.Sleep(b.interval)
}

func (b *backoff) reset() { b.interval = 0 }

// A socket is the socket of a connection. It limits how often the client can wake the broker.
//
// At first, a socket is in the poller of the Go runtime. There, the client wakes the broker
// whenever the client sends data, reads data, or calls shutdown(2). No limit counts these
// events. So the socket leaves the poller if the client does not behave like a normal client.
// Outside the poller, nothing wakes the broker. Instead, the broker checks the socket again
// and again.
type socket struct {
	calls   *systemCalls
	conn    *net.UnixConn              // in the poller; closed when the socket leaves the poller
	raw     syscall.RawConn            // of conn
	outside atomic.Pointer[descriptor] // nil while the socket is in the poller

	wakes          atomic.Int32  // number of events since resetWakes
	events         chan struct{} // receives a value after each event in the poller
	writeClosed    atomic.Bool   // CloseWrite was called
	stoppedReading atomic.Bool   // the client has shut down only its reading side
	ended          chan struct{} // closed when the client has shut down a direction, or after Close

	watching sync.WaitGroup // waits for the goroutine that runs watch
	closing  chan struct{}  // closed by Close

	mu       sync.Mutex // locked while the socket leaves the poller
	isClosed bool       // guarded by mu
}

func newSocket(conn *net.UnixConn, raw syscall.RawConn, calls *systemCalls) *socket {
	s := &socket{calls: calls, conn: conn, raw: raw, events: make(chan struct{}, 1), ended: make(chan struct{}), closing: make(chan struct{})}
	s.watching.Go(s.watch) // Close ends this goroutine and waits for it
	return s
}

// watch runs until the socket is closed. It limits how often the client can wake the
// broker. In each of these cases, the socket leaves the poller:
//
//   - The client has shut down one direction. The client can call shutdown(2) again and
//     again, and each call wakes the broker.
//   - The client has caused more than maxWakes events since the last call of resetWakes, for
//     example by sending a request in single bytes.
//   - The client has not read its answers for longer than patience (see waitUntilWritable).
//     watch would then not notice the events.
//
// watch closes s.ended when the client has ended the connection or shut down one direction,
// or when Close was called.
func (s *socket) watch() {
	defer close(s.ended)
	// The runtime calls this function after each event in the poller, because every event of
	// a Unix socket also reports that the socket is writable.
	s.raw.Write(func(fd uintptr) bool {
		select {
		case s.events <- struct{}{}:
		default:
		}
		mustEnd := s.wakes.Add(1) > maxWakes
		if !mustEnd {
			s.calls.do(func() { mustEnd = s.clientEnded(int(fd)) })
		}
		return mustEnd
	})
	hungUp := false
	s.control(func(fd int) { hungUp = pollNow(fd, 0)&unix.POLLHUP != 0 })
	if hungUp {
		return // the session ends at once, because Read has reached the end of the connection
	}
	s.leavePoller()
	for interval := maxWatchInterval / 10; ; interval = min(2*interval, maxWatchInterval) {
		ended := false
		s.control(func(fd int) { ended = s.clientEnded(fd) })
		if ended {
			return
		}
		select {
		case <-s.closing:
			return
		case <-time.After(interval):
		}
	}
}

// resetWakes resets the number of events. It must be called for each request, for each
// answer, and for each part of a large answer. So a connection can stay in the poller for any
// number of requests and for an answer of any size.
func (s *socket) resetWakes() { s.wakes.Store(0) }

// clientEnded reports whether the client has shut down one or both directions of the
// connection. If the client has shut down only its reading side, clientEnded also sets
// s.stoppedReading.
func (s *socket) clientEnded(fd int) bool {
	if pollNow(fd, unix.POLLRDHUP)&(unix.POLLRDHUP|unix.POLLHUP) != 0 {
		return true
	}
	// A send of zero bytes sends nothing. It fails with EPIPE if the client has shut down its
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
	unix.Poll(fds, 0) // after an error, there are no events
	return fds[0].Revents
}

// waitUntilWritable waits until the client has read most of its answers. The socket is then
// writable. If this takes longer than patience, the socket leaves the poller, because watch
// does not notice the events of a socket that is not writable.
func (s *socket) waitUntilWritable() error {
	var timeout <-chan time.Time // set if waitUntilWritable waits
	for s.inPoller() {
		if s.isWritable() {
			return nil
		}
		if timeout == nil {
			timeout = time.After(patience)
		}
		select {
		case <-s.events:
		case <-s.ended:
			return s.leavePoller()
		case <-timeout:
			return s.leavePoller()
		}
	}
	return nil
}

// isWritable reports whether the client has read most of its answers. isWritable also returns
// true if the connection has ended.
func (s *socket) isWritable() bool {
	writable := true
	s.control(func(fd int) { writable = pollNow(fd, unix.POLLOUT) != 0 })
	return writable
}

func (s *socket) inPoller() bool { return s.outside.Load() == nil }

// leavePoller removes the connection from the poller of the Go runtime, if the connection
// is in the poller. The runtime then no longer enforces deadlines for the connection, so
// Read and Session.waitToSend check the deadlines themselves.
func (s *socket) leavePoller() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.inPoller() {
		return nil
	}
	if s.isClosed {
		return net.ErrClosed
	}
	copied, err, controlErr := -1, error(nil), error(nil)
	s.calls.do(func() {
		controlErr = s.raw.Control(func(fd uintptr) { copied, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	})
	if err = errors.Join(controlErr, err); err != nil {
		return err
	}
	s.outside.Store(&descriptor{fd: copied})
	s.calls.do(func() { s.conn.Close() }) // cannot block, because the copy still has the socket open
	return nil
}

// control calls f with the file descriptor of the connection. If the connection is closed,
// control does not call f.
func (s *socket) control(f func(fd int)) {
	s.calls.do(func() {
		if s.inPoller() {
			if err := s.raw.Control(func(fd uintptr) { f(int(fd)) }); err == nil {
				return
			}
		}
		if outside := s.outside.Load(); outside != nil {
			outside.control(f)
		}
	})
}

// CloseWrite shuts down the broker's writing side. The client can still read all answers,
// and then reaches the end of the connection.
func (s *socket) CloseWrite() error {
	s.writeClosed.Store(true)
	err := net.ErrClosed
	s.control(func(fd int) { err = unix.Shutdown(fd, unix.SHUT_WR) })
	return err
}

// Close closes the connection.
func (s *socket) Close() error {
	s.mu.Lock()
	if !s.isClosed {
		s.isClosed = true
		close(s.closing)
	}
	s.mu.Unlock()
	// End the goroutine that runs watch before the socket is closed. Otherwise that goroutine
	// could be the last user of the socket, and a blocked close would block its thread.
	s.conn.SetWriteDeadline(time.Unix(1, 0))
	s.watching.Wait()
	if outside := s.outside.Load(); outside != nil {
		return outside.close()
	}
	return s.conn.Close()
}

// A descriptor is the file descriptor of a connection that is outside the poller. It is used
// only for calls that do not wait.
type descriptor struct {
	mu sync.RWMutex
	fd int // guarded by mu; -1 after close
}

func (d *descriptor) control(f func(fd int)) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.fd >= 0 {
		f(d.fd)
	}
}

// close closes the file descriptor on the calling thread.
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
