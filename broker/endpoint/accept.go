package endpoint

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// acceptDelay is how long an acceptor waits for the next connection until it is parked. It is long
// enough that an acceptor with frequent connections is not parked.
const acceptDelay = 100 * time.Millisecond

// An acceptor accepts the connections of a listener in a goroutine, the accept loop. If no client
// connects for acceptDelay, and if there is a ListenerPoller, the acceptor is parked: it has no
// accept loop until a client connects.
type acceptor struct {
	poller *ListenerPoller // nil if the acceptor is never parked
	drain  *drainState
	// serve serves a new connection, and returns false if the accept loop must end.
	serve func(*net.UnixConn) bool
	log   *slog.Logger
	// errorMessages limits the log messages about errors that clients can cause to one per second.
	// Otherwise a client could fill the log.
	errorMessages rate.Sometimes
	loops         sync.WaitGroup // waits until all accept loops have ended

	mu       sync.Mutex        // while mu is locked, ListenerPoller.mu can be locked
	listener *net.UnixListener // guarded by mu
	parked   bool              // whether poller waits for connections of listener; guarded by mu
	stopping bool              // whether stop was called; guarded by mu
}

// start makes the acceptor accept connections, until stop or close is called.
func (a *acceptor) start() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.parkLocked(a.listener) {
		a.startLoopLocked()
	}
}

// stop makes the acceptor accept no more connections after the deadline.
func (a *acceptor) stop(deadline time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopping = true
	if a.endParkLocked() && time.Now().Before(deadline) {
		a.startLoopLocked()
	}
	a.listener.SetDeadline(deadline)
}

// close ends the accept loop, and calls closeListener, which must close the listener that it gets.
func (a *acceptor) close(closeListener func(*net.UnixListener)) {
	a.mu.Lock()
	a.stopping = true
	a.endParkLocked()
	listener := a.listener
	a.mu.Unlock()
	closeListener(listener)
}

// replaceListener makes the acceptor use another listener. It returns the old listener, which the
// calling function must close. stop must not have been called.
func (a *acceptor) replaceListener(listener *net.UnixListener) (old *net.UnixListener) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.endParkLocked()
	old, a.listener = a.listener, listener
	a.startLoopLocked()
	return old
}

// startLoopLocked starts an accept loop. Closing the listener or calling stop ends this goroutine.
// The goroutine ends earlier if it parks the acceptor.
func (a *acceptor) startLoopLocked() {
	listener := a.listener
	if a.poller != nil {
		listener.SetDeadline(time.Now().Add(acceptDelay))
	}
	a.loops.Go(func() { a.acceptLoop(listener) })
}

// parkLocked parks the acceptor. It returns false if the acceptor must have an accept loop.
// listener is the listener of the accept loop, which may have been replaced by now.
func (a *acceptor) parkLocked(listener *net.UnixListener) bool {
	if a.poller != nil && a.listener == listener {
		a.parked = a.poller.add(listener, a.unpark) == nil
	}
	return a.parked
}

// endParkLocked ends the parked state. It returns false if the acceptor is not parked.
func (a *acceptor) endParkLocked() bool {
	if !a.parked {
		return false
	}
	a.poller.remove(a.listener)
	a.parked = false
	return true
}

// unpark starts an accept loop if the acceptor is parked.
func (a *acceptor) unpark() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.endParkLocked() {
		a.startLoopLocked()
	}
}

// afterDeadline must be called after the deadline of an accept loop has passed. It returns parked
// if it has parked the acceptor, because idle is true. It returns stopping if stop was called, which
// may have set a later deadline. Otherwise, afterDeadline sets a new deadline.
func (a *acceptor) afterDeadline(listener *net.UnixListener, idle bool) (parked, stopping bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.stopping:
		return false, true
	case idle && a.parkLocked(listener):
		return true, false
	}
	listener.SetDeadline(time.Now().Add(acceptDelay))
	return false, false
}

// acceptLoop accepts connections until the listener is closed, the deadline of stop has passed, or
// the acceptor is parked.
func (a *acceptor) acceptLoop(listener *net.UnixListener) {
	pause := time.Duration(0)
	idle := false     // whether the loop has accepted no connection since the last deadline
	stopping := false // whether the loop waits for the deadline of stop
	for {
		accepted, err := listener.AcceptUnix()
		if err == nil {
			pause, idle = 0, false
			if !a.serve(accepted) {
				return
			}
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			wasStopping, parked := stopping, false
			// After an error, do not park the acceptor, because the waiting client would end the
			// pause at once.
			if parked, stopping = a.afterDeadline(listener, idle && pause == 0); parked || wasStopping {
				return
			}
			idle = true
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		// The most likely reasons for an error are a lack of file descriptors and a lack of
		// memory. The connection waits in the backlog. Try again, because clients could otherwise
		// not connect until the broker restarts.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		a.errorMessages.Do(func() {
			a.log.Error("cannot accept a connection; trying again", "error", err, "retry_in", pause)
		})
		if !a.drain.sleep(pause) {
			return
		}
	}
}
