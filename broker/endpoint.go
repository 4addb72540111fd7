package broker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// drainQuiet is how long a draining endpoint waits for the next byte on a
// connection, and for the next connection: long enough for a request that is
// on its way, short enough for a stop not to be felt.
const drainQuiet = 50 * time.Millisecond

// An endpoint is a listener and its connections. run accepts until the endpoint
// is drained or closed; each connection has a goroutine that serve runs in, and
// both of those wait for all of them.
type endpoint struct {
	listener *net.UnixListener
	max      int // connections at once
	serve    func(*session)
	log      *slog.Logger
	// kept says that the service manager has the listener too: it outlives the
	// endpoint, and so must its path.
	kept bool

	draining chan struct{} // closed when draining begins
	wg       sync.WaitGroup

	mu       sync.Mutex
	sessions map[*session]struct{} // guarded by mu
	drained  bool                  // guarded by mu: draining is closed
}

func newEndpoint(l *net.UnixListener, max int, log *slog.Logger, serve func(*session)) *endpoint {
	return &endpoint{
		listener: l, max: max, serve: serve, log: log,
		draining: make(chan struct{}), sessions: map[*session]struct{}{},
	}
}

// start accepts in a goroutine of its own, which close ends and waits for.
func (e *endpoint) start() {
	e.wg.Add(1)
	go func() {
		defer e.wg.Done()
		e.accept()
	}()
}

func (e *endpoint) accept() {
	pause := time.Duration(0)
	for {
		conn, err := e.listener.AcceptUnix()
		switch {
		case err == nil:
			pause = 0
			e.open(conn)
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			// The connection waits in the backlog until there is room again.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			e.log.Error("a connection cannot be accepted yet", "error", err, "retry_in", pause)
			select {
			case <-e.draining:
				return
			case <-time.After(pause):
			}
		case errors.Is(err, unix.ECONNABORTED):
		default: // closed, or drained to the end of its backlog
			return
		}
	}
}

func (e *endpoint) open(conn *net.UnixConn) {
	s := &session{conn: conn, endpoint: e}
	e.mu.Lock()
	full := len(e.sessions) >= e.max
	if !full {
		e.sessions[s] = struct{}{}
		e.wg.Add(1)
	}
	e.mu.Unlock()
	if full {
		s.write(refuseAfter(schema.CodeRateLimited, 1, "this socket has %d connections, which is the most it takes", e.max))
		conn.Close()
		return
	}
	go func() { // ended by its client, a deadline, or close
		defer e.wg.Done()
		defer func() {
			e.mu.Lock()
			delete(e.sessions, s)
			e.mu.Unlock()
			conn.Close()
		}()
		var err error
		if s.caller, err = callerOf(conn); err != nil {
			e.log.Error("a connection is refused", "error", err)
			return
		}
		e.serve(s)
	}()
}

func (e *endpoint) connections() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.sessions)
}

// idleDeadline gives a connection its time to say something.
func (e *endpoint) idleDeadline(conn net.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	idle := schema.IdleTimeout
	if e.drained {
		idle = drainQuiet
	}
	conn.SetReadDeadline(time.Now().Add(idle))
}

// drain serves what has been asked, by connections in the backlog too unless
// the listener is kept, and ends every connection that has nothing more to say.
// What is left when ctx ends is cut off.
func (e *endpoint) drain(ctx context.Context) {
	e.mu.Lock()
	e.drained = true
	close(e.draining)
	if e.kept {
		e.listener.Close() // who comes now waits for the next daemon
	} else {
		e.listener.SetDeadline(time.Now().Add(drainQuiet))
	}
	for s := range e.sessions {
		s.conn.SetReadDeadline(time.Now().Add(drainQuiet))
	}
	e.mu.Unlock()

	done := make(chan struct{})
	go func() { // ended by close below, at the latest
		e.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	e.close()
}

// close ends the listener and every connection, and waits for their goroutines.
func (e *endpoint) close() {
	e.listener.Close()
	e.mu.Lock()
	if !e.drained {
		e.drained = true
		close(e.draining)
	}
	for s := range e.sessions {
		s.conn.Close()
	}
	e.mu.Unlock()
	e.wg.Wait()
}
