package broker

import (
	"sync"

	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/schema"
)

// exclusivePushes allows only one connection at a time to send exclusive pushes. Otherwise
// two sidecars with different stores would replace each other's secrets again and again.
type exclusivePushes struct {
	// mu is locked during each exclusive push. Lock mu before the locks of the keyring.
	mu sync.Mutex
	// owner is the connection that sent the last accepted exclusive push. It is nil if there was
	// no such push, or if the session of this connection has ended.
	owner *endpoint.Session
	// hasPushed is true if the last accepted push was exclusive.
	hasPushed bool
	// refused contains the connections whose last exclusive push was refused, because another
	// connection was the owner.
	refused map[*endpoint.Session]bool
	// storeProblems contains the number of problems that the sidecar of a connection has
	// reported last. It does not contain connections without problems.
	storeProblems map[*endpoint.Session]int
}

// isOwnedByOtherLocked reports whether s must not send an exclusive push, because another session
// sent the last accepted exclusive push, and its connection is still open. A connection that its
// client has ended does not count as open, even if its session has not ended yet. Otherwise a
// sidecar that was restarted could be refused because of its old connection.
func (e *exclusivePushes) isOwnedByOtherLocked(s *endpoint.Session) bool {
	return e.owner != nil && e.owner != s && !e.owner.HasEnded()
}

// acceptLocked records that an exclusive push of s was accepted.
func (e *exclusivePushes) acceptLocked(s *endpoint.Session) {
	e.owner, e.hasPushed = s, true
	delete(e.refused, s)
}

// acceptOther records that the last accepted push was not exclusive.
func (e *exclusivePushes) acceptOther() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hasPushed = false
}

// forget removes all data about the session s. The broker calls forget when s ends.
func (e *exclusivePushes) forget(s *endpoint.Session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.refused, s)
	delete(e.storeProblems, s)
	if e.owner == s {
		e.owner = nil
	}
}

// setStoreProblems records how many problems the sidecar of the session s has with its store.
func (e *exclusivePushes) setStoreProblems(s *endpoint.Session, count int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.storeProblems, s)
	if count > 0 {
		e.storeProblems[s] = min(count, schema.MaxPush) // so that the sum over all connections cannot overflow
	}
}

// addTo adds the state of the exclusive pushes to a status. The status must already contain the
// generation, because a sidecar counts as missing only while secrets are loaded.
func (e *exclusivePushes) addTo(status *schema.StatusResponse) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.owner != nil {
		status.SidecarPID = e.owner.Caller().PID
	}
	status.SidecarMissing = e.owner == nil && e.hasPushed && status.Generation > 0
	status.RefusedSidecars = len(e.refused)
	for _, count := range e.storeProblems {
		status.StoreProblems += count
	}
}
