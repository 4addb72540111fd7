package endpoint

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// If there are too many unauthorized connections, the endpoint ends up to maxEvictions of them, and
// then waits for evictionTime. It ends several connections at once, so that a client that opens
// many connections does not delay other clients.
const (
	maxEvictions = 32
	evictionTime = time.Millisecond
)

// admissions contains the admissions of all connections of an endpoint whose clients must be
// authorized.
type admissions struct {
	maxUnauthorized, maxAuthorized int

	mu           sync.Mutex   // conn.mu, descriptor.mu, and a slot of systemCalls can be acquired while mu is locked
	unauthorized []*admission // guarded by mu
	authorized   int          // number of authorized connections; guarded by mu
}

// An admission is the state of one connection.
type admission struct {
	all          *admissions
	conn         *conn
	uid          uint32      // of the client
	evicted      atomic.Bool // the connection must end, so that other clients can connect
	isAuthorized bool        // guarded by all.mu
}

// add adds an unauthorized connection of a client with the given uid. If there are already
// maxUnauthorized connections, it ends some of them and returns nil. The calling function should
// then try again soon.
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

// evictLocked ends unauthorized connections, so that at most maxEvictions connections are ending.
// It ends connections of the uid that has most of them. If it cannot end any of these, it ends
// connections of other uids.
//
// evictLocked chooses the connections at random. If it chose the oldest connections, a user who
// opens many connections with the same uid could keep out a client whose token arrives late, for
// example through SSH.
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
	var uid uint32                                     // of the connections that this call has ended
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

// evict ends the connection and returns true. But if the connection has unread data, evict does
// nothing, because these data can authorize the client.
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

// isEvicted reports whether the connection must end. The result is false if a is nil.
func (a *admission) isEvicted() bool { return a != nil && a.evicted.Load() }

// countAuthorized returns the number of authorized connections.
func (a *admissions) countAuthorized() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.authorized
}

// authorize makes the connection count as authorized. It returns false if there are already
// maxAuthorized connections.
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

// end must be called when the connection is closed. It does nothing if a is nil.
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
