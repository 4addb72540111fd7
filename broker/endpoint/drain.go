package endpoint

import (
	"net"
	"sync"
	"time"
)

// drainTimeout is how long a draining endpoint accepts and reads. A request that is on
// its way arrives within this time, and a user does not notice the delay of a stop.
const drainTimeout = 50 * time.Millisecond

// drainWriteTimeout is how long a client may take to read an answer while the endpoint
// drains.
const drainWriteTimeout = 500 * time.Millisecond

// A drainState is shared by an endpoint and its sessions.
type drainState struct {
	draining chan struct{} // closed by start

	mu       sync.Mutex // no other lock is taken while it is held
	deadline time.Time  // end of all reading; zero before start
}

func newDrainState() *drainState { return &drainState{draining: make(chan struct{})} }

// start begins to drain. It returns the time at which reading ends.
func (d *drainState) start() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deadline.IsZero() {
		d.deadline = time.Now().Add(drainTimeout)
		close(d.draining)
	}
	return d.deadline
}

// setReadDeadline sets how long a read may take.
func (d *drainState) setReadDeadline(conn net.Conn, timeout time.Duration) {
	d.setDeadline(conn.SetReadDeadline, timeout, 0)
}

// setWriteDeadline sets how long a write may take.
func (d *drainState) setWriteDeadline(conn net.Conn, timeout time.Duration) {
	d.setDeadline(conn.SetWriteDeadline, timeout, drainWriteTimeout-drainTimeout)
}

// setDeadline sets a deadline, at most extra after the end of all reading. The lock
// excludes start, so that no connection keeps a long timeout while the endpoint drains.
func (d *drainState) setDeadline(set func(time.Time) error, timeout, extra time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	deadline := time.Now().Add(timeout)
	if !d.deadline.IsZero() && d.deadline.Add(extra).Before(deadline) {
		deadline = d.deadline.Add(extra)
	}
	set(deadline)
}
