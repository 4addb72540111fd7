// Package keyring stores the current snapshot of secrets in locked memory, and parses
// push requests into new snapshots.
//
// A push replaces the snapshot in one step. A reader acquires a snapshot, uses it, and
// releases it. The last release wipes the snapshot's memory. A View can read a keyring,
// but cannot change it. The package does not trust the bytes of a push request. Its
// errors contain no part of a push request, except validated names.
package keyring

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// A Keyring stores the current snapshot. Several goroutines may call its methods at the
// same time.
type Keyring struct {
	pushing sync.Mutex // allows only one push at a time; always locked before mu

	mu         sync.Mutex               // no other mutex may be locked while mu is locked
	current    atomic.Pointer[Snapshot] // nil if no secrets are loaded; changed only while mu is locked
	generation atomic.Uint64            // generation of the last push; changed only while pushing is locked
	clearedAt  time.Time                // time of the last clear that removed secrets
	changed    chan struct{}            // each push and each clear closes this channel and creates a new one

	spare spareMemory
}

// New returns a keyring without secrets.
func New() *Keyring { return &Keyring{changed: make(chan struct{})} }

// NewBuffer returns a buffer for the request lines of one connection.
func (k *Keyring) NewBuffer() *LineBuffer { return &LineBuffer{spare: &k.spare} }

// ParseUsual parses a push request in its usual form, which is much faster than Parse. It
// returns false if line is unusual or wrong, or if it is not a push request. Then Parse must
// parse the request, or report the error.
func (k *Keyring) ParseUsual(line []byte) (*Request, bool) {
	snapshot := k.acquire()
	defer snapshot.Release()
	return parseUsual(line, snapshot.nameList())
}

// Push replaces the current snapshot with the secrets of a push request. It copies the secrets
// to the memory of the new snapshot.
//
// After Push has returned, no reader can acquire an older snapshot. An error means that there
// is not enough memory. After an error, the current snapshot is unchanged.
func (k *Keyring) Push(request *Request) (Info, error) {
	snapshot, err := request.newSnapshot(&k.spare)
	if err != nil {
		return Info{}, err
	}
	return k.replace(snapshot), nil
}

// replace makes a snapshot the current snapshot. The reference of the calling function to the
// snapshot then belongs to the keyring.
func (k *Keyring) replace(snapshot *Snapshot) Info {
	k.pushing.Lock()
	defer k.pushing.Unlock()
	previous := k.acquire()
	snapshot.setGeneration(k.generation.Load()+1, previous)
	snapshot.isExpired = func() bool { return k.generation.Load() > snapshot.generation+maxOldSnapshots }
	previous.Release()
	// Read info now, because Clear can release the snapshot as soon as it is the current one.
	info := snapshot.info()

	k.mu.Lock()
	// old can be nil although previous was not nil, because Clear does not lock pushing.
	old := k.current.Swap(snapshot)
	k.generation.Store(snapshot.generation)
	k.notifyLocked()
	k.mu.Unlock()
	old.Release()
	return info
}

// Clear removes the current snapshot and returns the number of secrets in it. It also frees
// the spare memory.
func (k *Keyring) Clear() int {
	k.mu.Lock()
	old := k.current.Swap(nil)
	if old != nil {
		k.clearedAt = time.Now().UTC()
	}
	k.notifyLocked()
	k.mu.Unlock()
	k.spare.free()
	if old == nil {
		return 0
	}
	count := len(old.locations)
	old.Release()
	return count
}

// Names returns the sorted names of the secrets in the current snapshot.
func (k *Keyring) Names() []schema.SecretName {
	snapshot := k.acquire()
	defer snapshot.Release()
	names := []schema.SecretName{}
	if snapshot != nil {
		names = append(names, snapshot.names.names...)
	}
	slices.Sort(names)
	return names
}

// Info returns a description of the current snapshot. If no secrets are loaded, all
// fields of the description are zero.
func (k *Keyring) Info() Info {
	snapshot := k.acquire()
	defer snapshot.Release()
	if snapshot == nil {
		return Info{}
	}
	return snapshot.info()
}

// ClearedAt returns the time of the clear that removed the last snapshot. The time is zero if
// secrets are loaded, or if there was no snapshot yet.
func (k *Keyring) ClearedAt() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current.Load() != nil {
		return time.Time{}
	}
	return k.clearedAt
}

// View returns a read-only view of the keyring.
func (k *Keyring) View() View { return View{k} }

// acquire returns the current snapshot with one more reference, or nil. It locks no
// mutex, because all projects call it for their requests.
func (k *Keyring) acquire() *Snapshot {
	for {
		snapshot := k.current.Load()
		// The last Release of a snapshot happens only after another snapshot, or nil, has
		// replaced it. So if tryAcquire fails, the next Load returns another value.
		if snapshot == nil || snapshot.tryAcquire() {
			return snapshot
		}
	}
}

func (k *Keyring) notifyLocked() {
	close(k.changed)
	k.changed = make(chan struct{})
}

// A View can read a keyring, but cannot change it.
type View struct{ keyring *Keyring }

// Acquire returns the current snapshot, or nil if no secrets are loaded. Release the snapshot
// after use.
func (v View) Acquire() *Snapshot { return v.keyring.acquire() }

// IsCurrent reports whether s is still the current snapshot. The calling function must have
// a reference to s. If s is nil, IsCurrent reports whether no secrets are loaded.
func (v View) IsCurrent(s *Snapshot) bool { return v.keyring.current.Load() == s }

// maxOldSnapshots is the largest number of later pushes after which a reply may still send
// secrets from a snapshot. After one more push, the snapshot is expired, and its replies
// end. Clients that do not read their answers could otherwise keep many old snapshots in
// locked memory, and the memory for the next snapshot would be missing.
const maxOldSnapshots = 4

// Changed returns a channel that the next push or clear closes. Call Changed before Acquire.
// Then a push or clear between the two calls closes the channel, so no change can be missed.
func (v View) Changed() <-chan struct{} {
	v.keyring.mu.Lock()
	defer v.keyring.mu.Unlock()
	return v.keyring.changed
}
