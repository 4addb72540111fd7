package project

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/keyring"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// allowedSecrets is a project's view of the keyring. It provides only the secrets on the
// allowlist of the approved manifest.
type allowedSecrets struct {
	view     keyring.View
	approved atomic.Pointer[manifest.Manifest]

	mu sync.Mutex
	// replaced is closed when another manifest is approved. It is nil if changes was not called for
	// the current manifest, because most projects never wait. Guarded by mu.
	replaced chan struct{}
}

func (a *allowedSecrets) manifest() *manifest.Manifest { return a.approved.Load() }

// setManifest replaces the approved manifest. Requests that are waiting for a secret then look up
// their names again with the new manifest, and watches compare the secrets again.
func (a *allowedSecrets) setManifest(m *manifest.Manifest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.approved.Store(m)
	if a.replaced != nil {
		close(a.replaced)
		a.replaced = nil
	}
}

// internName converts a name to a string. If the name is on the allowlist, internName returns the
// string that the allowlist contains, and allocates no memory.
func (a *allowedSecrets) internName(name []byte) schema.SecretName {
	allowlist := a.manifest().Allowlist()
	i, found := slices.BinarySearchFunc(allowlist, name, func(allowed schema.SecretName, name []byte) int {
		switch {
		case string(allowed) < string(name):
			return -1
		case string(allowed) > string(name):
			return 1
		}
		return 0
	})
	if found {
		return allowlist[i]
	}
	return schema.SecretName(name)
}

// lookUp looks up the names of found in the current snapshot, as described at lookup.lookUp, and
// counts these names (see Session.CountNames). Release found after use.
func (a *allowedSecrets) lookUp(s *endpoint.Session, found *lookup) {
	// Acquire the snapshot before reading the manifest. In the opposite order, a reload
	// that revokes a name and then a push of a new value could happen between the two
	// steps. The project would then get the new value of the revoked name.
	snapshot := a.view.Acquire()
	found.lookUp(a.manifest(), snapshot)
	s.CountNames(len(found.results))
}

// isCurrent reports whether the snapshot and the approved manifest are still the ones that found
// comes from. If isCurrent returns true, a new lookup would have the same results.
func (a *allowedSecrets) isCurrent(found *lookup) bool {
	return a.view.IsCurrent(found.snapshot) && a.manifest() == found.approved
}

// await looks up the names of found. While an allowed secret is missing, await waits for the next
// push, clear, or reload, and then looks up the names again. Each lookup checks the current
// allowlist, so a reload also affects requests that are waiting. When the timeout expires, await
// returns after a last lookup. Release found after use.
//
// await returns false if it would have to wait, but the client has ended the connection, or the
// endpoint drains, for example because the broker stops. The client of a stopped broker can then
// send its request to the next broker. If await returns false, do not use or release found.
func (a *allowedSecrets) await(s *endpoint.Session, found *lookup, timeout time.Duration) bool {
	expired := time.NewTimer(timeout)
	defer expired.Stop()
	for {
		changed, replaced := a.changes()
		a.lookUp(s, found)
		if found.isComplete() {
			return true
		}
		found.release()
		select {
		case <-changed:
		case <-replaced:
		case <-expired.C:
			a.lookUp(s, found)
			return true
		case <-s.Gone():
			return false
		case <-s.Draining():
			return false
		}
	}
}

// changes returns two channels. The first channel is closed at the next push or clear, and the
// second channel is closed when the manifest is replaced. Call changes before a lookup. Then a
// change between the two calls closes a channel, so the calling function misses no change.
func (a *allowedSecrets) changes() (snapshotChanged, manifestReplaced <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.replaced == nil {
		a.replaced = make(chan struct{})
	}
	return a.view.Changed(), a.replaced
}

// versions returns the versions of the allowed secrets that are loaded, and the generation of the
// current snapshot. If no secrets are loaded, the versions are empty and the generation is 0.
func (a *allowedSecrets) versions() (versions, uint64) {
	snapshot := a.view.Acquire()
	defer snapshot.Release()
	current := versions{}
	if snapshot == nil {
		return current, 0
	}
	for _, name := range a.manifest().Allowlist() {
		if value, ok := snapshot.Lookup(name); ok {
			current[name] = value.Since
		}
	}
	return current, snapshot.Generation()
}
