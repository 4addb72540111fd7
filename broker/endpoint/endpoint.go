// Package endpoint serves a listening Unix socket: it accepts connections, reads
// the caller's credentials, enforces limits and deadlines, and drains before a
// stop. It knows no operation: a Handler answers the requests.
//
// It trusts no caller. Each connection has one goroutine and answers its requests
// in order.
package endpoint

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// maxUnreadInterval is how often, at least, the broker checks whether a client has read
// its last answers. The kernel does not report that.
const maxUnreadInterval = 100 * time.Millisecond

// Unread answers use at most 128 MiB in all: so much only if more than manyConnections
// connections hold 32 KiB each. From then on, an endpoint whose clients leave more than
// unreadShare bytes unread gets no new connections.
const (
	manyConnections = 4096
	unreadShare     = 64 << 10
)

// A Config describes an endpoint.
type Config struct {
	Listener       *net.UnixListener // the first one, see ReplaceListener
	MaxConnections int
	// Connects limits new connections per second. nil means no limit.
	Connects *Limiter
	// Total counts the connections of several endpoints. nil means that only this
	// endpoint counts.
	Total *atomic.Int64
	// Serve answers one connection, usually by calling Session.Run. The connection
	// is closed when it returns.
	Serve func(*Session)
	Log   *slog.Logger
}

// An Endpoint is a listener and its sessions. It accepts from Start until it is
// drained or closed.
//
// A connection counts until it is really closed: while the client has not read its
// answers, they use memory of the broker, so the connection stays open.
type Endpoint struct {
	config Config
	closer interruptingCloser
	drain  *drainState
	wg     sync.WaitGroup // the accept loop and all sessions

	// errorMessages limits messages that a client can cause. It would otherwise fill the log.
	errorMessages rate.Sometimes

	mu               sync.Mutex            // no other lock is taken while it is held
	listener         *net.UnixListener     // guarded by mu
	sessions         map[*Session]struct{} // guarded by mu
	connectLimitedAt time.Time             // guarded by mu
}

// New returns an endpoint that does not accept yet. It owns the listener.
func New(config Config) *Endpoint {
	refuseDescriptors(config.Listener)
	return newEndpoint(config)
}

func newEndpoint(config Config) *Endpoint {
	if config.Total == nil {
		config.Total = new(atomic.Int64)
	}
	return &Endpoint{
		config: config, drain: newDrainState(), errorMessages: rate.Sometimes{Interval: time.Second},
		listener: config.Listener, sessions: map[*Session]struct{}{},
	}
}

// CloseListener closes a listener that has no endpoint. Its backlog may contain
// descriptors whose close blocks.
func CloseListener(listener *net.UnixListener) {
	var c interruptingCloser
	c.close(func() { listener.Close() })
}

// SocketPath returns the path of the socket.
func (e *Endpoint) SocketPath() string { return e.config.Listener.Addr().String() }

// Start accepts connections in a goroutine of its own, which Drain or Close ends.
func (e *Endpoint) Start() { e.wg.Go(func() { e.acceptLoop(e.config.Listener) }) }

// ReplaceListener accepts on another listener, because the socket file of the current
// one is gone. It closes the current one. Connections stay open. The endpoint must be
// started, and not draining.
func (e *Endpoint) ReplaceListener(listener *net.UnixListener) {
	refuseDescriptors(listener)
	e.mu.Lock()
	old := e.listener
	e.listener = listener
	e.mu.Unlock()
	// Closing ends the accept loop of the old listener. It can take a while.
	e.wg.Go(func() { e.closer.close(func() { old.Close() }) })
	e.wg.Go(func() { e.acceptLoop(listener) })
}

func (e *Endpoint) acceptLoop(listener *net.UnixListener) {
	pause := time.Duration(0)
	for {
		accepted, err := listener.AcceptUnix()
		if err == nil {
			pause = 0
			paid, wait := e.payForConnection()
			e.startSession(accepted, paid)
			if !e.sleep(wait) {
				return
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return // closed, or the backlog is drained
		}
		if errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		// Most likely there are not enough descriptors or not enough memory. The
		// connection waits in the backlog. No error may end the loop: the project would
		// be unreachable until the broker restarts.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		e.errorMessages.Do(func() {
			e.config.Log.Error("cannot accept a connection; trying again", "error", err, "retry_in", pause)
		})
		if !e.sleep(pause) {
			return
		}
	}
}

// payForConnection takes a new connection from the limit. It returns how many requests the
// connection has paid for, and how long the accept loop must wait before the next one.
// Clients wait in the backlog. The accepted connection does not wait, so that it always
// belongs to a session. Once per second, a connection over the limit is free: it gets an
// answer that explains the delay.
func (e *Endpoint) payForConnection() (paid int, wait time.Duration) {
	if e.config.Connects == nil {
		return 0, 0
	}
	wait, cancel := e.config.Connects.Reserve(1)
	if wait > 0 && e.mayExplainLimit() {
		cancel()
		return 0, 0
	}
	return 1, wait
}

// mayExplainLimit reports true once per second.
func (e *Endpoint) mayExplainLimit() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Since(e.connectLimitedAt) < time.Second {
		return false
	}
	e.connectLimitedAt = time.Now()
	return true
}

// sleep returns false if the endpoint drains.
func (e *Endpoint) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-e.drain.draining:
		return false
	case <-time.After(d):
		return true
	}
}

func (e *Endpoint) startSession(accepted *net.UnixConn, paid int) {
	c, err := newConn(accepted)
	if err != nil {
		e.config.Log.Error("refusing a connection", "error", err)
		accepted.Close()
		return
	}
	s := &Session{conn: c, drain: e.drain, prepaid: paid, connects: e.config.Connects}
	e.mu.Lock()
	full := len(e.sessions) >= e.config.MaxConnections || e.holdsTooMuchLocked()
	if !full {
		e.sessions[s] = struct{}{}
		e.config.Total.Add(1)
	}
	e.mu.Unlock()
	if full {
		// Only one client per second gets an answer, because unread answers of closed
		// connections are not counted. A new socket has room for it, so the write does
		// not wait.
		if !e.mayExplainLimit() {
			e.close(c)
			return
		}
		s.Write(RefuseFor(1, schema.CodeRateLimited, "too many connections: the limit of this socket is %d", e.config.MaxConnections))
		e.close(c)
		return
	}
	e.wg.Go(func() { // ended by its client, a deadline, or Close
		defer e.finishSession(s)
		if s.caller, err = callerOf(accepted); err != nil {
			e.config.Log.Error("refusing a connection", "error", err)
			return
		}
		e.config.Serve(s)
	})
}

// holdsTooMuchLocked reports whether the clients of this endpoint use too much memory by
// not reading. It looks only if there are many connections in all.
func (e *Endpoint) holdsTooMuchLocked() bool {
	if e.config.Total.Load() < manyConnections {
		return false
	}
	unread := 0
	for s := range e.sessions {
		unread += s.conn.unreadBytes()
	}
	return unread > unreadShare
}

// finishSession closes a connection once the client has read all answers, has closed its
// end, or the endpoint drains.
func (e *Endpoint) finishSession(s *Session) {
	if s.conn.unreadBytes() > 0 {
		s.conn.CloseWrite()
		if err := s.conn.leavePoller(); err != nil {
			e.errorMessages.Do(func() {
				e.config.Log.Error("a connection stays in the poller", "error", err)
			})
		}
		for interval := time.Millisecond; s.conn.unreadBytes() > 0 && e.sleep(interval); {
			interval = min(2*interval, maxUnreadInterval)
		}
	}
	e.close(s.conn)
	e.mu.Lock()
	delete(e.sessions, s)
	e.config.Total.Add(-1)
	e.mu.Unlock()
}

// close closes a connection, which may contain passed descriptors.
func (e *Endpoint) close(c *conn) {
	if c.mayHoldDescriptors() {
		e.closer.close(func() { c.Close() })
		return
	}
	c.Close()
}

// EndNonReaders ends the connections whose clients have shut down their reading side. It
// must be called about once per second.
//
// Such a client can read no answer. But each of its calls of shutdown(2) would wake the
// broker, without any limit. So the client also pays for many requests, and can repeat
// this only a few times per minute.
func (e *Endpoint) EndNonReaders() {
	e.mu.Lock()
	defer e.mu.Unlock()
	found := false
	for s := range e.sessions {
		if s.conn.clientStoppedReading() {
			s.conn.SetDeadline(time.Unix(1, 0))
			found = true
		}
	}
	if found {
		e.config.Connects.chargeNonReader()
	}
}

// Connections returns the number of open connections.
func (e *Endpoint) Connections() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.sessions)
}

// Drain answers the requests that clients have already sent, and then ends every
// connection. Connections that are still busy when ctx ends are closed.
//
// keepListener means that the service manager holds the listener too: connections
// in the backlog stay there for the next broker. Otherwise they are served.
func (e *Endpoint) Drain(ctx context.Context, keepListener bool) {
	deadline := e.drain.start()
	e.mu.Lock()
	if keepListener {
		e.listener.Close()
	} else {
		e.listener.SetDeadline(deadline)
	}
	for s := range e.sessions {
		s.conn.SetReadDeadline(deadline)
		s.conn.SetWriteDeadline(deadline.Add(drainWriteTimeout - drainTimeout))
	}
	e.mu.Unlock()
	select {
	case <-e.ended():
	case <-ctx.Done():
	}
	e.Close()
}

// Close closes the listener and every connection, and waits for their goroutines, at
// most for a second: one that does not end must not hold up an operator.
func (e *Endpoint) Close() {
	e.drain.start()
	e.mu.Lock()
	listener := e.listener
	for s := range e.sessions {
		// A deadline, and not Close: the session closes the connection itself.
		s.conn.SetDeadline(time.Unix(1, 0))
	}
	e.mu.Unlock()
	e.closer.close(func() { listener.Close() }) // drops the backlog
	select {
	case <-e.ended():
	case <-time.After(time.Second):
		e.config.Log.Error("a connection does not end", "connections", e.Connections())
	}
}

// ended returns a channel that is closed when all goroutines of the endpoint have
// ended.
func (e *Endpoint) ended() <-chan struct{} {
	ended := make(chan struct{})
	go func() { // ended by the end of the sessions
		e.wg.Wait()
		close(ended)
	}()
	return ended
}
