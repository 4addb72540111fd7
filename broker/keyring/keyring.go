// Package keyring holds the current snapshot of secrets in locked memory, and
// parses pushes into new snapshots.
//
// A push replaces the snapshot in one step. A reader acquires a snapshot, uses it,
// and releases it; the last release wipes the memory. A View can only read. The
// package trusts the bytes of a push in no way, and its errors contain nothing
// of them except validated names.
package keyring

import (
	"slices"
	"sync"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
)

// A Keyring holds the current snapshot. Its methods may be called by several
// goroutines at the same time.
type Keyring struct {
	pushing sync.Mutex // one push at a time; taken before mu

	mu         sync.Mutex    // no other lock is taken while it is held
	current    *Snapshot     // nil if no secrets are loaded
	generation uint64        // of the last push; written with pushing held too
	changed    chan struct{} // closed, and replaced, by each push and clear
}

// New returns a keyring without secrets.
func New() *Keyring { return &Keyring{changed: make(chan struct{})} }

// Push replaces the current snapshot with the secrets of a push request. line is
// the request, and lies in arena. Push takes over the arena: it becomes the
// snapshot's memory, or is wiped.
//
// When Push returns, no reader can acquire an older snapshot. On an error the
// current snapshot stays. The error is a *wire.Error if the line is not strict
// JSON, and a *PayloadError if it breaks a rule of push requests. Any other error
// means that there is not enough memory.
func (k *Keyring) Push(arena *secmem.Arena, line []byte) (Info, error) {
	snapshot, err := parsePush(arena, line)
	if err != nil {
		return Info{}, err
	}
	return k.replace(snapshot), nil
}

// replace makes a snapshot the current one, and takes over its reference.
func (k *Keyring) replace(snapshot *Snapshot) Info {
	k.pushing.Lock()
	defer k.pushing.Unlock()
	previous := k.acquire()
	snapshot.setGeneration(k.generation+1, previous)
	previous.Release()
	info := snapshot.info() // before a later push can release the snapshot

	k.mu.Lock()
	old := k.current // nil if a clear came in between
	k.generation = snapshot.generation
	k.current = snapshot
	k.notifyLocked()
	k.mu.Unlock()
	old.Release()
	return info
}

// Clear drops the current snapshot and returns how many secrets it contained.
func (k *Keyring) Clear() int {
	k.mu.Lock()
	old := k.current
	k.current = nil
	k.notifyLocked()
	k.mu.Unlock()
	if old == nil {
		return 0
	}
	count := len(old.secrets) // read before Release, but also valid after it
	old.Release()
	return count
}

// Names returns the names of the current secrets, sorted.
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

// Info describes the current snapshot.
func (k *Keyring) Info() Info {
	snapshot := k.acquire()
	defer snapshot.Release()
	if snapshot == nil {
		return Info{}
	}
	return snapshot.info()
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

// A View reads a keyring, and cannot change it.
type View struct{ keyring *Keyring }

// Acquire returns the current snapshot, or nil if no secrets are loaded. The
// caller must release it.
func (v View) Acquire() *Snapshot { return v.keyring.acquire() }

// Changed returns a channel that is closed when another snapshot, or none,
// becomes the current one. Call it before Acquire: a change between the two calls
// then closes the channel.
func (v View) Changed() <-chan struct{} {
	v.keyring.mu.Lock()
	defer v.keyring.mu.Unlock()
	return v.keyring.changed
}
