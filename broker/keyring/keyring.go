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
	pushing sync.Mutex // locked while a push replaces the snapshot; never lock it while mu is locked

	mu         sync.Mutex               // lock no other mutex while mu is locked
	current    atomic.Pointer[Snapshot] // nil if no secrets are loaded; changed only while mu is locked
	generation atomic.Uint64            // generation of the last push; changed only while pushing is locked
	clearedAt  time.Time                // time at which Clear last removed a snapshot; zero if it has removed none
	changed    chan struct{}            // each push and each clear closes this channel and creates a new one

	spare spareMemory
}

// New returns a keyring without secrets.
func New() *Keyring { return &Keyring{changed: make(chan struct{})} }

// NewBuffer returns a buffer for the request lines of one connection.
func (k *Keyring) NewBuffer() *LineBuffer { return &LineBuffer{spare: &k.spare} }

// ParseUsual parses a push request in its usual form (see wire.ParsePush), much faster than
// Parse. For any other line, ParseUsual returns false. The line can then be a push request in
// another form, a wrong push request, or another request. If the line is a push request, call
// Parse, which parses the request or returns the error.
func (k *Keyring) ParseUsual(line []byte) (*Request, bool) {
	snapshot := k.acquire()
	defer snapshot.Release()
	return parseUsual(line, snapshot.nameList())
}

// Push replaces the current snapshot with the secrets of a push request. It copies the secrets
// to the memory of the new snapshot.
//
// After Push has returned, no reader can acquire an older snapshot. Push fails only if there is
// not enough memory for the new snapshot. The current snapshot then does not change.
func (k *Keyring) Push(request *Request) (Info, error) {
	snapshot, err := request.newSnapshot(&k.spare)
	if err != nil {
		return Info{}, err
	}
	return k.replace(snapshot), nil
}

// replace makes a new snapshot the current snapshot. The keyring takes over the reference that
// the calling function has to the new snapshot.
func (k *Keyring) replace(snapshot *Snapshot) Info {
	k.pushing.Lock()
	defer k.pushing.Unlock()
	previous := k.acquire()
	snapshot.setGeneration(k.generation.Load()+1, previous)
	snapshot.isExpired = func() bool { return k.generation.Load() > snapshot.generation+maxOldSnapshots }
	previous.Release()
	// Read info now: as soon as the snapshot is the current one, Clear can release it, and
	// info must not read a snapshot without memory.
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

// Clear removes the current snapshot and returns the number of secrets in this snapshot, or 0 if
// there was no snapshot. Readers that have acquired the snapshot can use it until they release
// it. Clear also frees the spare memory.
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

// Names returns the sorted names of the secrets in the current snapshot. If no secrets are
// loaded, the list is empty, but not nil.
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

// ClearedAt returns the time at which Clear removed the last snapshot. The time is zero if there
// is a current snapshot, or if there was no snapshot yet.
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

// acquire adds a reference to the current snapshot and returns the snapshot, or returns nil if
// there is none. It locks no mutex, so the requests of different projects do not wait for each
// other.
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
// secrets from a snapshot. After one more push, the snapshot is expired, and the broker ends all
// replies that still send secrets from it. Otherwise, clients that do not read their answers
// could keep many old snapshots in locked memory, and this memory would be missing for the next
// snapshot.
const maxOldSnapshots = 4

// Changed returns a channel that the next push or clear closes. Call Changed before Acquire.
// Then a push or clear between the two calls closes the channel, so no change can be missed.
func (v View) Changed() <-chan struct{} {
	v.keyring.mu.Lock()
	defer v.keyring.mu.Unlock()
	return v.keyring.changed
}
