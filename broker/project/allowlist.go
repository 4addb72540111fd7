package project

import (
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/keyring"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// allowedSecrets is the keyring as a project may see it: through the allowlist of
// its approved manifest.
type allowedSecrets struct {
	view     keyring.View
	approval atomic.Pointer[approval]
}

// An approval is an approved manifest.
type approval struct {
	manifest *manifest.Manifest
	replaced chan struct{} // closed when another manifest is approved
}

func (a *allowedSecrets) manifest() *manifest.Manifest { return a.approval.Load().manifest }

// setManifest puts a manifest in force. Requests that wait are checked again.
func (a *allowedSecrets) setManifest(m *manifest.Manifest) {
	previous := a.approval.Swap(&approval{m, make(chan struct{})})
	if previous != nil {
		close(previous.replaced)
	}
}

// lookup looks names up in the current snapshot. The caller must release the
// lookup.
func (a *allowedSecrets) lookup(names []schema.SecretName) lookup {
	// The snapshot comes first. Otherwise a reload and a push between the two could add
	// a new value of a name that the reload has revoked.
	snapshot := a.view.Acquire()
	return lookUp(a.manifest(), snapshot, names)
}

// await looks names up. If an allowed secret is missing, it waits for a push that
// brings it, until the timeout. Each attempt checks the allowlist again, so a
// reload also affects requests that wait. The caller must release the lookup.
//
// await reports false if the client is gone, or if the broker stops: the client
// will ask the next broker.
func (a *allowedSecrets) await(s *endpoint.Session, names []schema.SecretName, timeout time.Duration) (lookup, bool) {
	found := a.lookup(names)
	if timeout <= 0 || found.isComplete() {
		return found, true
	}
	found.release()
	expired := time.NewTimer(timeout)
	defer expired.Stop()
	gone, stop := s.Gone()
	defer stop()
	for {
		changed, replaced := a.changes()
		found := a.lookup(names)
		if found.isComplete() {
			return found, true
		}
		found.release()
		select {
		case <-changed:
		case <-replaced:
		case <-expired.C:
			return a.lookup(names), true
		case <-gone:
			return lookup{}, false
		case <-s.Draining():
			return lookup{}, false
		}
	}
}

// changes returns a channel that is closed when the snapshot changes, and one that
// is closed when the manifest is replaced. Call it before a lookup: a change between
// the two calls then closes a channel.
func (a *allowedSecrets) changes() (snapshotChanged, manifestReplaced <-chan struct{}) {
	return a.view.Changed(), a.approval.Load().replaced
}

// versions returns the versions and the generation of the current snapshot, which
// is 0 if no secrets are loaded.
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
