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
	"time"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
)

// A Keyring stores the current snapshot. Several goroutines may call its methods at the
// same time.
type Keyring struct {
	pushing sync.Mutex // allows only one push at a time; always locked before mu

	mu         sync.Mutex    // no other mutex may be locked while mu is locked
	current    *Snapshot     // nil if no secrets are loaded
	generation uint64        // generation of the last push; changed only while pushing and mu are locked
	clearedAt  time.Time     // time of the last clear that removed secrets
	changed    chan struct{} // each push and each clear closes this channel and creates a new one
}

// New returns a keyring without secrets.
func New() *Keyring { return &Keyring{changed: make(chan struct{})} }

// Push replaces the current snapshot with the secrets of a push request. line is the
// request, and its bytes are a part of arena. From this call on, the keyring owns arena.
// Push uses arena as the memory of the new snapshot, or wipes arena after an error.
//
// After Push has returned, no reader can acquire an older snapshot. After an error, the
// current snapshot is unchanged. The error is a *wire.Error if the line is not strict JSON,
// and a *PayloadError if the line violates a rule of push requests. Any other error means
// that there is not enough memory.
func (k *Keyring) Push(arena *secmem.Arena, line []byte) (Info, error) {
	snapshot, err := parsePush(arena, line)
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
	snapshot.setGeneration(k.generation+1, previous)
	previous.Release()
	// Read info now, because Clear can release the snapshot as soon as it is the current one.
	info := snapshot.info()

	k.mu.Lock()
	// old can be nil although previous was not nil, because Clear does not lock pushing.
	old := k.current
	k.generation = snapshot.generation
	k.current = snapshot
	k.notifyLocked()
	k.mu.Unlock()
	old.Release()
	return info
}

// Clear removes the current snapshot and returns the number of secrets in it.
func (k *Keyring) Clear() int {
	k.mu.Lock()
	old := k.current
	k.current = nil
	if old != nil {
		k.clearedAt = time.Now().UTC()
	}
	k.notifyLocked()
	k.mu.Unlock()
	if old == nil {
		return 0
	}
	count := len(old.secrets)
	old.Release()
	return count
}

// Names returns the sorted names of the secrets in the current snapshot.
func (k *Keyring) Names() []schema.SecretName {
	snapshot := k.acquire()
	defer snapshot.Release()
	names := []schema.SecretName{}
	if snapshot != nil {
		for name := range snapshot.secrets {
			names = append(names, name)
		}
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
	if k.current != nil {
		return time.Time{}
	}
	return k.clearedAt
}

// View returns a read-only view of the keyring.
func (k *Keyring) View() View { return View{k} }

func (k *Keyring) acquire() *Snapshot {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil {
		k.current.references.Add(1)
	}
	return k.current
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

// maxOldSnapshots is the number of generations after which a snapshot expires. Clients that
// do not read their answers could otherwise keep many old snapshots in locked memory, and
// the memory for the next snapshot would be missing.
const maxOldSnapshots = 4

// IsExpired reports whether a reader must release a snapshot, even if it has not finished.
func (v View) IsExpired(s *Snapshot) bool {
	v.keyring.mu.Lock()
	defer v.keyring.mu.Unlock()
	return s != nil && v.keyring.generation > s.generation+maxOldSnapshots
}

// Changed returns a channel that the next push or clear closes. Call Changed before Acquire.
// Then a push or clear between the two calls closes the channel, so no change can be missed.
func (v View) Changed() <-chan struct{} {
	v.keyring.mu.Lock()
	defer v.keyring.mu.Unlock()
	return v.keyring.changed
}
