package endpoint

import (
	"sync"
	"time"
)

// drainTimeout is how long a draining endpoint still accepts connections and reads
// requests. The time is long enough for requests that clients have already sent, and so
// short that a user does not notice the delay of a stop.
const drainTimeout = 50 * time.Millisecond

// drainWriteTimeout is how long after the beginning of the drain a client may still read an
// answer.
const drainWriteTimeout = 500 * time.Millisecond

// A drainState is shared by an endpoint and its sessions.
type drainState struct {
	draining chan struct{} // closed by start

	mu       sync.Mutex // conn.mu can be locked while mu is locked, but no other mutex
	deadline time.Time  // when sessions stop reading requests; zero before start
}

func newDrainState() *drainState { return &drainState{draining: make(chan struct{})} }

// start begins to drain. It returns the time at which the sessions stop reading requests.
func (d *drainState) start() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deadline.IsZero() {
		d.deadline = time.Now().Add(drainTimeout)
		close(d.draining)
	}
	return d.deadline
}

// setReadDeadline sets how long reads of a connection may take. During a drain, the time is
// shorter.
func (d *drainState) setReadDeadline(conn *conn, timeout time.Duration) {
	d.setDeadline(conn.setReadDeadline, timeout, 0)
}

// setWriteDeadline sets how long writes to a connection may take. During a drain, the time
// is shorter.
func (d *drainState) setWriteDeadline(conn *conn, timeout time.Duration) {
	d.setDeadline(conn.setWriteDeadline, timeout, drainWriteTimeout-drainTimeout)
}

// setDeadline sets a deadline with the function set. During a drain, the deadline is at
// most extra after d.deadline. setDeadline and start lock mu, so no connection has a long
// deadline while the endpoint drains.
func (d *drainState) setDeadline(set func(time.Time), timeout, extra time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	deadline := time.Now().Add(timeout)
	if !d.deadline.IsZero() && d.deadline.Add(extra).Before(deadline) {
		deadline = d.deadline.Add(extra)
	}
	set(deadline)
}
