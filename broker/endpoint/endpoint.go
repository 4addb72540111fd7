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
	"sync"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// A Config describes an endpoint. All fields are required.
type Config struct {
	Listener       *net.UnixListener
	MaxConnections int
	// Serve answers one connection, usually by calling Session.Run. The connection
	// is closed when it returns.
	Serve func(*Session)
	Log   *slog.Logger
}

// An Endpoint is a listener and its sessions. It accepts from Start until it is
// drained or closed. Drain and Close wait for every goroutine of the endpoint.
type Endpoint struct {
	config Config
	drain  *drainState
	wg     sync.WaitGroup // the accept loop and all sessions

	mu       sync.Mutex            // no other lock is taken while it is held
	sessions map[*Session]struct{} // guarded by mu
}

// New returns an endpoint that does not accept yet. It owns the listener.
func New(config Config) *Endpoint {
	return &Endpoint{config: config, drain: newDrainState(), sessions: map[*Session]struct{}{}}
}

// SocketPath returns the path of the socket.
func (e *Endpoint) SocketPath() string { return e.config.Listener.Addr().String() }

// Start accepts connections in a goroutine of its own, which Drain or Close ends.
func (e *Endpoint) Start() { e.wg.Go(e.acceptLoop) }

func (e *Endpoint) acceptLoop() {
	pause := time.Duration(0)
	for {
		conn, err := e.config.Listener.AcceptUnix()
		switch {
		case err == nil:
			pause = 0
			e.startSession(conn)
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			// The connection waits in the backlog until there are descriptors or
			// memory again.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			e.config.Log.Error("cannot accept a connection yet", "error", err, "retry_in", pause)
			select {
			case <-e.drain.draining:
				return
			case <-time.After(pause):
			}
		case errors.Is(err, unix.ECONNABORTED):
		default: // closed, or the backlog is drained
			return
		}
	}
}

func (e *Endpoint) startSession(conn *net.UnixConn) {
	s := &Session{conn: conn, drain: e.drain}
	e.mu.Lock()
	full := len(e.sessions) >= e.config.MaxConnections
	if !full {
		e.sessions[s] = struct{}{}
	}
	e.mu.Unlock()
	if full {
		s.Write(RefuseFor(1, schema.CodeRateLimited, "too many connections: the limit of this socket is %d", e.config.MaxConnections))
		conn.Close()
		return
	}
	e.wg.Go(func() { // ended by its client, a deadline, or Close
		defer e.endSession(s)
		var err error
		if s.caller, err = callerOf(conn); err != nil {
			e.config.Log.Error("refusing a connection", "error", err)
			return
		}
		e.config.Serve(s)
	})
}

func (e *Endpoint) endSession(s *Session) {
	e.mu.Lock()
	delete(e.sessions, s)
	e.mu.Unlock()
	s.conn.Close()
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
	e.drain.start()
	if keepListener {
		e.config.Listener.Close()
	} else {
		e.config.Listener.SetDeadline(time.Now().Add(drainTimeout))
	}
	e.mu.Lock()
	for s := range e.sessions {
		s.conn.SetReadDeadline(time.Now().Add(drainTimeout))
	}
	e.mu.Unlock()

	done := make(chan struct{})
	go func() { // ended by Close below, at the latest
		e.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	e.Close()
}

// Close closes the listener and every connection, and waits for their goroutines.
func (e *Endpoint) Close() {
	e.config.Listener.Close()
	e.drain.start()
	e.mu.Lock()
	for s := range e.sessions {
		s.conn.Close()
	}
	e.mu.Unlock()
	e.wg.Wait()
}
