package endpoint

import (
	"math/rand/v2"
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
	unauthorized []*admission // guarded by mu
	authorized   int          // number of authorized connections; guarded by mu
}

// An admission stores whether the client of one connection is authorized.
type admission struct {
	all          *admissions
	conn         *conn
	uid          uint32      // of the client
	evicted      atomic.Bool // the endpoint has ended this unauthorized connection, so that other clients can connect
	isAuthorized bool        // guarded by all.mu
}

// add adds an unauthorized connection of a client with the given uid. If there are already
// maxUnauthorized unauthorized connections, add calls evictLocked and returns nil. The calling
// function should then wait for evictionTime and try again.
func (a *admissions) add(c *conn, uid uint32) *admission {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.unauthorized) >= a.maxUnauthorized {
		a.evictLocked()
		return nil
	}
	added := &admission{all: a, conn: c, uid: uid}
	a.unauthorized = append(a.unauthorized, added)
	return added
}

// evictLocked makes unauthorized connections end, so that up to maxEvictions connections are
// ending. evictLocked chooses connections of the uid that has the most unauthorized connections.
// If evictLocked cannot end any connection of this uid, it chooses connections of another uid.
//
// evictLocked chooses the connections at random. If evictLocked chose the oldest connections, a
// user who opens many connections with the same uid could keep out a client whose token arrives
// late, for example through SSH.
func (a *admissions) evictLocked() {
	var candidates []*admission
	counts := map[uint32]int{} // number of candidates of each uid
	for _, each := range a.unauthorized {
		if !each.evicted.Load() {
			candidates = append(candidates, each)
			counts[each.uid]++
		}
	}
	rand.Shuffle(len(candidates), func(i, j int) { candidates[i], candidates[j] = candidates[j], candidates[i] })
	slices.SortStableFunc(candidates, func(x, y *admission) int { return counts[y.uid] - counts[x.uid] })
	evictions := len(a.unauthorized) - len(candidates) // number of connections that are ending
	var uid uint32                                     // uid of the connections that this call has ended
	ended := false
	for _, each := range candidates {
		if evictions >= maxEvictions || ended && each.uid != uid {
			return
		}
		if each.evict() {
			evictions++
			uid, ended = each.uid, true
		}
	}
}

// evict makes the connection end and returns true. But if the connection contains data that the
// broker has not read, evict does nothing and returns false, because these data may be a valid
// token.
func (a *admission) evict() bool {
	hasData := true
	a.conn.control(func(fd int) { hasData = pollNow(fd, unix.POLLIN) != 0 })
	if hasData {
		return false
	}
	a.evicted.Store(true)
	a.conn.deadline.change(longAgo)
	return true
}

// isEvicted reports whether the endpoint has ended this unauthorized connection, so that other
// clients can connect. The result is false if a is nil.
func (a *admission) isEvicted() bool { return a != nil && a.evicted.Load() }

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
