package broker

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
)

// A secret is a place in a snapshot's arena. Its bytes are the JSON string that
// is sent: quoted, and for a bundle quoted JSON text.
type secret struct {
	kind       secretKind
	start, end int
	since      uint64 // the generation that brought this value
}

type secretKind uint8

const (
	textSecret secretKind = iota
	binarySecret
	bundleSecret
)

// A snapshot is one complete, immutable set of secrets. Whoever holds a
// reference may read the arena; the last one to let go wipes it. A snapshot
// answers to its keyring's lock and has none of its own.
type snapshot struct {
	arena      *secmem.Arena
	secrets    map[schema.SecretName]secret
	generation uint64
	loadedAt   time.Time

	refs int // guarded by the keyring's mu
}

// bytes returns the JSON string of s, good while the snapshot is held.
func (snap *snapshot) bytes(s secret) []byte { return snap.arena.Bytes()[s.start:s.end] }

// A keyring holds the current snapshot. Nothing is done under its lock but
// swapping a pointer and counting.
type keyring struct {
	replacing sync.Mutex // held by replace, and taken before mu

	mu         sync.Mutex
	current    *snapshot     // nil: nothing is loaded
	generation uint64        // of the last push; written with replacing held too
	moved      chan struct{} // closed, and made anew, by each replace, clear and wake
}

func newKeyring() *keyring { return &keyring{moved: make(chan struct{})} }

// acquire returns the current snapshot, or nil, and a channel that is closed
// when there is another one, or none, or a reason to look again. A snapshot
// must be released.
func (k *keyring) acquire() (*snapshot, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil {
		k.current.refs++
	}
	return k.current, k.moved
}

// wake has all who wait look again.
func (k *keyring) wake() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wakeLocked()
}

func (k *keyring) wakeLocked() {
	close(k.moved)
	k.moved = make(chan struct{})
}

// release gives up a reference. A nil snapshot needs none.
func (k *keyring) release(snap *snapshot) {
	if snap == nil {
		return
	}
	k.mu.Lock()
	snap.refs--
	last := snap.refs == 0
	k.mu.Unlock()
	if last {
		snap.arena.Free()
	}
}

// replace makes snap the current snapshot, numbers it, and returns its number.
// From then on nobody can acquire an older one.
func (k *keyring) replace(snap *snapshot) uint64 {
	snap.refs = 1
	// One push at a time, so that the one before is what is compared with.
	k.replacing.Lock()
	defer k.replacing.Unlock()
	before, _ := k.acquire()
	snap.generation = k.generation + 1
	snap.date(before)
	k.release(before)

	k.mu.Lock()
	old := k.current // not before, where a clear has come between
	k.generation = snap.generation
	k.current = snap
	k.wakeLocked()
	k.mu.Unlock()
	k.release(old)
	return snap.generation
}

// date says of each secret since which generation it has its value: so a
// snapshot can be told from any before it by numbers, when those are wiped. The
// caller holds before, which may be nil.
func (snap *snapshot) date(before *snapshot) {
	for name, s := range snap.secrets {
		s.since = snap.generation
		if before != nil {
			if old, ok := before.secrets[name]; ok && old.kind == s.kind && bytes.Equal(before.bytes(old), snap.bytes(s)) {
				s.since = old.since
			}
		}
		snap.secrets[name] = s
	}
}

// clear drops the current snapshot and returns how many secrets it held.
func (k *keyring) clear() int {
	k.mu.Lock()
	old := k.current
	k.current = nil
	k.wakeLocked()
	k.mu.Unlock()
	if old == nil {
		return 0
	}
	count := len(old.secrets) // immutable, and the map outlives the arena
	k.release(old)
	return count
}

// names returns the names in the current snapshot, sorted.
func (k *keyring) names() []schema.SecretName {
	snap, _ := k.acquire()
	defer k.release(snap)
	names := []schema.SecretName{}
	if snap != nil {
		for name := range snap.secrets {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
