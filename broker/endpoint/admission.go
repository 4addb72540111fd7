package endpoint

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// If a client connects and there are already too many unauthorized connections, the endpoint ends
// up to maxEvictions of these connections, and then waits for evictionTime. It ends several
// connections at once, so that a client that opens many connections delays other clients only for
// a short time.
const (
	maxEvictions = 32
	evictionTime = time.Millisecond
)

// admissions counts the authorized and the unauthorized connections of an endpoint with
// Config.MaxUnauthorized.
type admissions struct {
	maxUnauthorized, maxAuthorized int

	mu           sync.Mutex   // while mu is locked, deadline.mu and descriptor.mu can be locked, and systemCalls.begin can be called
	unauthorized []*admission // guarded by mu; the oldest first
	authorized   int          // number of authorized connections; guarded by mu
}

// An admission contains whether the client of one connection is authorized.
type admission struct {
	all          *admissions
	conn         *conn
	evicted      atomic.Bool // the endpoint has ended this unauthorized connection, so that other clients can connect
	isAuthorized bool        // guarded by all.mu
}

// add adds an unauthorized connection. If there are already maxUnauthorized unauthorized
// connections, add calls evictLocked and returns nil. The calling function should then wait for
// evictionTime and try again.
func (a *admissions) add(c *conn) *admission {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.unauthorized) >= a.maxUnauthorized {
		a.evictLocked()
		return nil
	}
	added := &admission{all: a, conn: c}
	a.unauthorized = append(a.unauthorized, added)
	return added
}

// evictLocked makes up to maxEvictions unauthorized connections end, the oldest first. It does
// not end a connection with data that the broker has not read, because these data may be a valid
// token.
func (a *admissions) evictLocked() {
	evictions := 0
	for _, oldest := range a.unauthorized {
		hasData := true
		oldest.conn.control(func(fd int) { hasData = pollNow(fd, unix.POLLIN) != 0 })
		if hasData || oldest.evicted.Swap(true) {
			continue
		}
		oldest.conn.deadline.change(longAgo)
		if evictions++; evictions == maxEvictions {
			return
		}
	}
}

// countAuthorized returns the number of authorized connections.
func (a *admissions) countAuthorized() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.authorized
}

// authorize makes the connection count as authorized. It returns false if there are already
// maxAuthorized authorized connections.
func (a *admission) authorize() bool {
	a.all.mu.Lock()
	defer a.all.mu.Unlock()
	if a.all.authorized >= a.all.maxAuthorized {
		return false
	}
	a.all.authorized++
	a.isAuthorized = true
	a.removeLocked()
	return true
}

// end must be called once, when the endpoint closes the connection. If a is nil, end does
// nothing.
func (a *admission) end() {
	if a == nil {
		return
	}
	a.all.mu.Lock()
	defer a.all.mu.Unlock()
	if a.isAuthorized {
		a.all.authorized--
		return
	}
	a.removeLocked()
}

func (a *admission) removeLocked() {
	if i := slices.Index(a.all.unauthorized, a); i >= 0 {
		a.all.unauthorized = slices.Delete(a.all.unauthorized, i, i+1)
	}
}
