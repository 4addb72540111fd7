// Package endpoint serves a listening Unix socket. It accepts connections, reads the
// credentials of each caller, and enforces limits and deadlines. When an endpoint drains,
// it still answers the requests that clients have already sent. The package does not know
// the operations of the protocol. A Handler answers the requests.
//
// The package trusts no caller. For each connection, one goroutine at a time answers the
// requests, in order.
package endpoint

import (
	"context"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/time/rate"
)

// maxUnreadInterval is the maximum time between two checks whether the client of an ended session
// has read its last answers. The connection has left the poller of the Go runtime (see socket),
// so no event reports that the client reads, and the endpoint must check again and again.
const maxUnreadInterval = 100 * time.Millisecond

// If Config.Total is at least manyConnections, an endpoint refuses new connections while
// the unread answers of its clients use more than unreadShare bytes. Without this limit,
// the unread answers of all projects together could use very much memory. Each connection
// can have 32 KiB of unread answers, so 4096 connections can have 128 MiB.
const (
	manyConnections = 4096
	unreadShare     = 64 << 10
)

// A Config is the configuration of an endpoint.
type Config struct {
	Listener       *net.UnixListener // the first listener; ReplaceListener can replace it
	MaxConnections int
	// MaxUnauthorized is the maximum number of connections whose clients are not authorized yet
	// (Session.Authorize). These connections do not count against MaxConnections. If more clients
	// connect, the endpoint ends some of these connections, but none with data that the broker has
	// not read. If MaxUnauthorized is 0, clients need no authorization.
	MaxUnauthorized int
	// Connects limits the number of new connections per second. It can be the same Limiter as
	// Handler.Limit. nil means no limit.
	Connects *Limiter
	// Total counts the connections of several endpoints together. If Total is nil, the
	// endpoint counts only its own connections.
	Total *atomic.Int64
	// Poller waits for connections while the endpoint has no accept loop. If Poller is nil, the
	// endpoint always has an accept loop.
	Poller *ListenerPoller
	// Serve answers the requests of one connection, usually by calling Session.Run. After Serve
	// has returned, the endpoint closes the connection as soon as the client has read all
	// answers. But if the session is parked (see Handler.Park), the connection stays open.
	Serve func(*Session)
	Log   *slog.Logger
}

// An Endpoint is a listener with the sessions of its connections. Start makes the
// Endpoint accept connections, until StopAccepting, Drain, or Close is called.
//
// Answers that a client has not read use memory in the kernel. So the Endpoint still counts
// a connection after its session has ended, until the client has read all answers or has
// closed the connection, or until the Endpoint drains.
type Endpoint struct {
	config   Config
	closer   interruptingCloser
	calls    systemCalls
	drain    drainState
	acceptor acceptor
	wg       sync.WaitGroup // waits for all sessions and for old listeners

	refusals   refusals    // its mutex can be locked while mu is locked
	admissions *admissions // nil if clients need no authorization; its mutex can be locked while mu is locked

	// While mu is locked, deadline.mu and descriptor.mu can be locked, and
	// systemCalls.begin can be called.
	mu               sync.Mutex
	sessions         map[*Session]struct{} // guarded by mu
	connectLimitedAt time.Time             // when mayExplainLimit last returned true; guarded by mu
}

// New returns an endpoint that does not accept connections yet. The endpoint owns the listener of
// config. Drain or Close closes the listener.
func New(config Config) *Endpoint {
	refuseDescriptors(config.Listener)
	return newEndpoint(config)
}

func newEndpoint(config Config) *Endpoint {
	if config.Total == nil {
		config.Total = new(atomic.Int64)
	}
	e := &Endpoint{
		config: config, sessions: map[*Session]struct{}{}, refusals: refusals{max: maxRefusals},
	}
	e.acceptor = acceptor{
		poller: config.Poller, drain: &e.drain, serve: e.serveAccepted, log: config.Log, errorMessages: rate.Sometimes{Interval: time.Second},
		listener: config.Listener,
	}
	if config.MaxUnauthorized > 0 {
		e.admissions = &admissions{maxUnauthorized: config.MaxUnauthorized, maxAuthorized: config.MaxConnections}
		e.refusals.max = config.MaxUnauthorized / 2
	}
	return e
}

// CloseListener closes a listener that has no endpoint. It uses an interruptingCloser, because a
// connection in the backlog of the listener may contain passed file descriptors. When the kernel
// closes these file descriptors, it can block the thread.
func CloseListener(listener *net.UnixListener) {
	var c interruptingCloser
	c.close(func() { listener.Close() })
}

// SocketPath returns the path of the endpoint's socket.
func (e *Endpoint) SocketPath() string { return e.config.Listener.Addr().String() }

// Start makes the endpoint accept connections, until StopAccepting, Drain, or Close is called.
func (e *Endpoint) Start() { e.acceptor.start() }

// StopAccepting begins to drain the endpoint, and waits until the endpoint accepts no more
// connections. The connections in the backlog stay there, so another endpoint with the same
// socket can serve them. After StopAccepting, call Close.
//
// StopAccepting waits for one second at most, because the accept loop may be closing a
// connection that contains passed file descriptors. After that close, the loop ends.
func (e *Endpoint) StopAccepting() {
	e.drain.start()
	e.acceptor.stop(longAgo)
	stopped := make(chan struct{})
	go func() { // this goroutine ends after the accept loops have ended
		e.acceptor.loops.Wait()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(time.Second):
	}
}

// ReplaceListener makes the endpoint accept connections on another listener, and closes the
// current listener. It is for an endpoint whose socket file is missing or was replaced. Open
// connections stay open. The endpoint must be started and must not be draining.
func (e *Endpoint) ReplaceListener(listener *net.UnixListener) {
	refuseDescriptors(listener)
	old := e.acceptor.replaceListener(listener)
	// Closing the old listener ends its accept loop. Close it in a goroutine, because the close
	// can take some time.
	e.wg.Go(func() { e.closer.close(func() { old.Close() }) })
}

// serveAccepted starts a session for a new connection, and waits if there are too many new
// connections. It returns false if the endpoint drains.
func (e *Endpoint) serveAccepted(accepted *net.UnixConn) bool {
	paid, wait := e.payForConnection()
	e.startSession(accepted, paid)
	return e.drain.sleep(wait)
}

// payForConnection counts a new connection against Config.Connects. The result paid is 1 if the
// connection was counted, so that Session.cost does not count the first request again. Otherwise,
// paid is 0. The result wait is how long the accept loop must wait before it accepts the next
// connection. During this wait, other clients wait in the backlog. The accepted connection itself
// does not wait.
//
// At most once per second, payForConnection returns 0 for both results although the connection is
// over the limit. The first request of this connection then usually gets a refusal, which explains
// to the client why the broker delays connections.
func (e *Endpoint) payForConnection() (paid int, wait time.Duration) {
	if e.config.Connects == nil {
		return 0, 0
	}
	wait = e.config.Connects.Reserve(1, time.Now())
	if wait > 0 && e.mayExplainLimit() {
		e.config.Connects.Return(1)
		return 0, 0
	}
	return 1, wait
}

// mayExplainLimit reports whether the broker may now send an answer that explains a limit. It
// returns true at most once per second.
func (e *Endpoint) mayExplainLimit() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Since(e.connectLimitedAt) < time.Second {
		return false
	}
	e.connectLimitedAt = time.Now()
	return true
}

func (e *Endpoint) startSession(accepted *net.UnixConn, paid int) {
	c, err := newConn(accepted, &e.calls)
	if err != nil {
		e.config.Log.Error("refusing a connection", "error", err)
		accepted.Close()
		return
	}
	s := newSession(c, &e.drain, paid)
	s.refusals = &e.refusals
	if e.admissions != nil {
		caller, err := callerOf(c)
		if err != nil {
			e.config.Log.Error("refusing a connection", "error", err)
			e.close(c)
			return
		}
		for s.admission = e.admissions.add(c, caller.UID); s.admission == nil; s.admission = e.admissions.add(c, caller.UID) {
			if !e.drain.sleep(evictionTime) {
				e.close(c)
				return
			}
		}
	}
	e.mu.Lock()
	full := e.admissions == nil && len(e.sessions) >= e.config.MaxConnections || e.holdsTooMuchLocked()
	if !full {
		e.sessions[s] = struct{}{}
		e.config.Total.Add(1)
	}
	e.mu.Unlock()
	if full {
		// The broker closes this connection at once, and then does not count the unread answer.
		// So answer at most one client per second. The answer fits into the buffer of a new
		// socket, so the write does not wait.
		s.admission.end()
		if !e.mayExplainLimit() {
			e.close(c)
			return
		}
		s.Write(RefuseFor(1, schema.CodeRateLimited, "too many connections or unread answers: this socket allows at most %d connections", e.config.MaxConnections))
		e.close(c)
		return
	}
	s.canPark = true
	e.wg.Go(func() { // the client, a deadline, or Close ends this goroutine
		if s.caller, err = callerOf(c); err != nil {
			e.config.Log.Error("refusing a connection", "error", err)
			e.finishSession(s)
			return
		}
		e.serve(s)
	})
}

// serve serves a connection until its session ends or is parked. For a parked session,
// serve starts a goroutine that waits for the next request.
func (e *Endpoint) serve(s *Session) {
	growStack()
	e.config.Serve(s)
	if !s.parked {
		e.finishSession(s)
		return
	}
	// Start a new goroutine, because its stack is small. The stack of the current goroutine has
	// grown. The Go runtime would make this stack smaller only after some time, and not as small
	// as a new stack.
	e.wg.Go(func() { // the client, a deadline, or Close ends this goroutine
		s.awaitEvent()
		e.wg.Go(func() { e.serve(s) }) // the client, a deadline, or Close ends this goroutine
	})
}

// growStack makes the stack of the calling goroutine large enough for the answer to a get. Without
// growStack, the Go runtime would replace the small stack of a new goroutine later, while many
// functions use it. Copying such a stack takes about one microsecond.
//
//go:noinline
func growStack() {
	var space [2 << 10]byte
	runtime.KeepAlive(&space)
}

// holdsTooMuchLocked reports whether the unread answers of this endpoint's clients use more than
// unreadShare bytes. While Config.Total is less than manyConnections, this limit does not apply, and
// holdsTooMuchLocked returns false.
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

// finishSession waits until the client has read all answers or has closed the connection,
// or until the endpoint drains. It then closes the connection.
func (e *Endpoint) finishSession(s *Session) {
	s.stopWatching()
	if s.conn.unreadBytes() > 0 {
		s.conn.CloseWrite()
		if err := s.conn.leavePoller(); err != nil {
			e.acceptor.errorMessages.Do(func() {
				e.config.Log.Error("cannot remove a connection from the poller of the Go runtime", "error", err)
			})
		}
		// Wait at most unreadRefusalTimeout for a client that WriteUnauthorized has refused, because
		// refused clients must not use up the connections of other clients. A client can still read
		// the refusal after the broker has closed the connection.
		isOver := func() bool { return false }
		if s.refusedAt != (time.Time{}) {
			isOver = func() bool { return s.admission.isEvicted() || time.Since(s.refusedAt) >= unreadRefusalTimeout }
		}
		for interval := time.Millisecond; s.conn.unreadBytes() > 0 && !isOver() && e.drain.sleep(interval); {
			interval = min(2*interval, maxUnreadInterval)
		}
	}
	e.close(s.conn)
	e.mu.Lock()
	delete(e.sessions, s)
	s.admission.end()
	e.refusals.remove(s)
	e.config.Total.Add(-1)
	e.mu.Unlock()
}

// close closes a connection. If the connection may contain passed file descriptors, close uses the
// interruptingCloser, because the close can block the thread.
func (e *Endpoint) close(c *conn) {
	if c.mayHoldDescriptors() {
		e.closer.close(func() { c.Close() })
		return
	}
	c.Close()
}

// Connections returns the number of open connections. It includes the connections whose
// sessions have ended, but whose clients have not read all answers.
// Unauthorized connections do not count.
func (e *Endpoint) Connections() int {
	if e.admissions != nil {
		return e.admissions.countAuthorized()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.sessions)
}

// Drain answers the requests that clients have already sent, and then closes the endpoint (see
// Close). If ctx ends first, Drain does not wait for the remaining answers.
//
// If keepListener is true, Drain does not accept the connections in the backlog. The next broker can
// serve them, but only if the service manager also has the listener open. If keepListener is false,
// Drain also serves the connections in the backlog.
func (e *Endpoint) Drain(ctx context.Context, keepListener bool) {
	deadline := e.drain.start()
	if keepListener {
		e.acceptor.close(func(listener *net.UnixListener) { listener.Close() })
	} else {
		e.acceptor.stop(deadline)
	}
	e.mu.Lock()
	for s := range e.sessions {
		s.conn.deadline.change(deadline)
	}
	e.mu.Unlock()
	select {
	case <-e.ended():
	case <-ctx.Done():
	}
	e.Close()
}

// Close closes the listener and all connections, and waits for their goroutines. It waits for one
// second at most, so that a connection that does not end cannot delay a stop of the broker or the
// unregistration of a project for longer.
func (e *Endpoint) Close() {
	e.drain.start()
	e.drain.end()
	e.mu.Lock()
	for s := range e.sessions {
		// The deadline in the past ends the session, and the session closes the connection.
		s.conn.deadline.change(longAgo)
	}
	e.mu.Unlock()
	e.acceptor.close(func(listener *net.UnixListener) {
		e.closer.close(func() { listener.Close() }) // also closes the connections in the backlog, unless another process has the listener open
	})
	select {
	case <-e.ended():
	case <-time.After(time.Second):
		e.config.Log.Error("some connections did not end within one second", "connections", e.Connections())
	}
}

// ended returns a channel that is closed when all goroutines of the endpoint have
// ended.
func (e *Endpoint) ended() <-chan struct{} {
	ended := make(chan struct{})
	go func() { // this goroutine ends after all sessions have ended
		e.acceptor.loops.Wait() // wait for the accept loops first, because they start sessions
		e.wg.Wait()
		close(ended)
	}()
	return ended
}
