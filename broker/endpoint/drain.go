package endpoint

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// drainTimeout is how long a draining endpoint still reads requests. If Drain also serves the
// backlog, this is also how long the endpoint accepts connections. The time is long enough for
// requests that clients have already sent, and so short that a user does not notice the delay of
// a stop.
const drainTimeout = 50 * time.Millisecond

// drainWriteTimeout is how long a write may wait for its client during a drain, counted from the
// beginning of the drain.
const drainWriteTimeout = 500 * time.Millisecond

// A drainState stores whether an endpoint drains, and when its sessions must stop reading requests.
// The endpoint and its sessions share the drainState.
type drainState struct {
	deadline atomic.Pointer[time.Time] // when sessions stop reading requests; nil before start

	mu      sync.Mutex    // lock no other mutex while mu is locked
	started chan struct{} // closed by start; nil if nobody has called draining, because most endpoints never need the channel; guarded by mu
}

// start begins to drain. It returns the time at which the sessions stop reading requests.
func (d *drainState) start() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deadline.Load() == nil {
		deadline := time.Now().Add(drainTimeout)
		d.deadline.Store(&deadline)
		if d.started != nil {
			close(d.started)
		}
	}
	return *d.deadline.Load()
}

// draining returns a channel that is closed when the endpoint begins to drain.
func (d *drainState) draining() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.started == nil {
		d.started = make(chan struct{})
		if d.deadline.Load() != nil {
			close(d.started)
		}
	}
	return d.started
}

// end makes the sessions stop reading and writing at their next check. Call start before end.
func (d *drainState) end() { d.deadline.Store(&longAgo) }

// limit returns the time t. During a drain, it returns the deadline of the drain if this deadline
// is earlier than t.
func (d *drainState) limit(t time.Time) time.Time {
	if deadline := d.deadline.Load(); deadline != nil && deadline.Before(t) {
		return *deadline
	}
	return t
}

// setReadDeadline sets the read deadline of a connection to t. During a drain, it sets the
// deadline of the drain if this deadline is earlier than t.
func (d *drainState) setReadDeadline(c *conn, t time.Time) {
	c.deadline.set(t)
	// Check for a drain only after the deadline t was set. If a drain begins after this check,
	// Drain itself replaces the deadline t.
	if limit := d.limit(t); limit.Before(t) {
		c.deadline.set(limit)
	}
}

// isWriteOver reports whether a write must end, because schema.WriteTimeout has passed since began,
// or drainWriteTimeout has passed since the beginning of a drain. began is when the write began to
// wait for the client.
func (d *drainState) isWriteOver(began time.Time) bool {
	end := began.Add(schema.WriteTimeout)
	if deadline := d.deadline.Load(); deadline != nil {
		if drainEnd := deadline.Add(drainWriteTimeout - drainTimeout); drainEnd.Before(end) {
			end = drainEnd
		}
	}
	return !time.Now().Before(end)
}

// sleep waits for t and returns true. If the endpoint drains before t has passed, sleep returns
// false at once.
func (d *drainState) sleep(t time.Duration) bool {
	if t <= 0 {
		return true
	}
	select {
	case <-d.draining():
		return false
	case <-time.After(t):
		return true
	}
}
