package endpoint

import (
	"net"
	"sync"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// drainTimeout is how long a draining endpoint waits for the next byte on a
// connection, and for the next connection. A request that is on its way arrives
// within this time, and a user does not notice the delay of a stop.
const drainTimeout = 50 * time.Millisecond

// A drainState is shared by an endpoint and its sessions.
type drainState struct {
	draining chan struct{} // closed by start

	mu      sync.Mutex // no other lock is taken while it is held
	started bool       // draining is closed
}

func newDrainState() *drainState { return &drainState{draining: make(chan struct{})} }

func (d *drainState) start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.started {
		d.started = true
		close(d.draining)
	}
}

// setIdleDeadline sets how long a connection may be silent before its next
// request. The lock excludes start, so that no connection keeps the long timeout
// while the endpoint drains.
func (d *drainState) setIdleDeadline(conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	timeout := schema.IdleTimeout
	if d.started {
		timeout = drainTimeout
	}
	conn.SetReadDeadline(time.Now().Add(timeout))
}
