package endpoint

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/schema"
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
	once     sync.Once     // closes draining

	deadline atomic.Pointer[time.Time] // when sessions stop reading requests; nil before start
}

func newDrainState() *drainState { return &drainState{draining: make(chan struct{})} }

// start begins to drain. It returns the time at which the sessions stop reading requests.
func (d *drainState) start() time.Time {
	d.once.Do(func() {
		deadline := time.Now().Add(drainTimeout)
		d.deadline.Store(&deadline)
		close(d.draining)
	})
	return *d.deadline.Load()
}

// end makes the sessions stop reading and writing. start must have been called.
func (d *drainState) end() { d.deadline.Store(&longAgo) }

// limit returns the time t, or the deadline of the drain if that is earlier.
func (d *drainState) limit(t time.Time) time.Time {
	if deadline := d.deadline.Load(); deadline != nil && deadline.Before(t) {
		return *deadline
	}
	return t
}

// setReadDeadline sets the read deadline of a connection to t. During a drain, it sets
// the deadline of the drain if that is earlier.
func (d *drainState) setReadDeadline(c *conn, t time.Time) {
	c.deadline.set(t)
	// Read the deadline of the drain after the call above. If the drain begins later, Drain
	// overwrites the deadline t.
	if limit := d.limit(t); limit.Before(t) {
		c.deadline.set(limit)
	}
}

// isWriteOver reports whether a write must end that has been waiting for the client since
// began.
func (d *drainState) isWriteOver(began time.Time) bool {
	end := began.Add(schema.WriteTimeout)
	if deadline := d.deadline.Load(); deadline != nil {
		if drainEnd := deadline.Add(drainWriteTimeout - drainTimeout); drainEnd.Before(end) {
			end = drainEnd
		}
	}
	return !time.Now().Before(end)
}
