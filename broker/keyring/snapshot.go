package keyring

import (
	"bytes"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
)

// Info describes a snapshot.
type Info struct {
	Generation  uint64 // 0 if no secrets are loaded
	SecretCount int
	LoadedAt    time.Time     // time at which the snapshot was created
	Memory      schema.Memory // how the memory of the snapshot is protected
}

// A location is the place of a secret's response line in the arena of a snapshot.
type location struct {
	start, end int
	since      uint64 // the generation of the last push that added or changed the secret
}

// A Snapshot is one complete, immutable set of secrets. It counts its references, and the
// last Release wipes its memory. Without this count, the memory could be wiped while a
// slow reader still uses it, and a client would receive wiped memory.
type Snapshot struct {
	arena      *secmem.Arena // nil after the last Release
	used       int           // number of bytes at the start of the arena that contain response lines
	spare      *spareMemory  // gets the arena after the last Release
	names      *nameList
	locations  []location // in the order of names
	generation uint64
	loadedAt   time.Time
	references atomic.Int64 // 0 after the last Release

	// Lease returns these two functions. They are created once for each snapshot, so that a reply
	// allocates no memory for them.
	release   func()
	isExpired func() bool
}

// newSnapshot returns a snapshot with one reference. The snapshot then owns the arena. The
// argument used is the number of bytes at the start of the arena that contain response lines.
func newSnapshot(arena *secmem.Arena, used int, names *nameList, locations []location, spare *spareMemory) *Snapshot {
	s := &Snapshot{arena: arena, used: used, spare: spare, names: names, locations: locations, loadedAt: time.Now().UTC()}
	s.references.Store(1)
	s.release = s.Release
	return s
}

// nameList returns the names of the secrets. For a nil snapshot, it returns nil.
func (s *Snapshot) nameList() *nameList {
	if s == nil {
		return nil
	}
	return s.names
}

// tryAcquire adds a reference, and returns true. If the last reference was already released, it
// returns false and adds no reference.
func (s *Snapshot) tryAcquire() bool {
	for n := s.references.Load(); n > 0; n = s.references.Load() {
		if s.references.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

// Lookup returns the secret with this name, and reports whether the secret exists.
func (s *Snapshot) Lookup(name schema.SecretName) (Value, bool) {
	i, ok := s.names.index[name]
	if !ok {
		return Value{}, false
	}
	l := s.locations[i]
	return Value{s.bytesAt(l), l.since}, true
}

// Generation returns the generation of the snapshot. For a nil snapshot, it returns 0.
func (s *Snapshot) Generation() uint64 {
	if s == nil {
		return 0
	}
	return s.generation
}

// Release releases one reference to the snapshot. If this was the last reference, Release wipes
// the memory of the snapshot. If s is nil, Release does nothing.
func (s *Snapshot) Release() {
	if s != nil && s.references.Add(-1) == 0 {
		s.spare.put(s.arena, s.used)
		s.arena = nil
	}
}

// Lease returns functions for a reply that contains memory of the snapshot. release releases
// the reference that Acquire returned. isExpired reports whether the reply must end now,
// because more than maxOldSnapshots pushes were accepted after the push of this snapshot. For a nil
// snapshot, Lease returns nil.
func (s *Snapshot) Lease() (release func(), isExpired func() bool) {
	if s == nil {
		return nil, nil
	}
	return s.release, s.isExpired
}

func (s *Snapshot) info() Info {
	return Info{s.generation, len(s.locations), s.loadedAt, s.arena.Kind()}
}

func (s *Snapshot) bytesAt(l location) []byte { return s.arena.Bytes()[l.start:l.end] }

// setGeneration sets the generation of the snapshot. For each secret, it also stores the
// generation of the last push that added or changed the secret. A watch compares these numbers to
// find changed secrets, because the old values may already be wiped. previous is the current
// snapshot, which s will replace, or nil if no secrets are loaded. The calling function must have
// a reference to previous.
func (s *Snapshot) setGeneration(generation uint64, previous *Snapshot) {
	s.generation = generation
	for i, name := range s.names.names {
		l := &s.locations[i]
		l.since = generation
		if previous == nil {
			continue
		}
		oldIndex, ok := i, true
		if s.names != previous.names {
			oldIndex, ok = previous.names.index[name]
		}
		if ok {
			if old := previous.locations[oldIndex]; bytes.Equal(previous.bytesAt(old), s.bytesAt(*l)) {
				l.since = old.since
			}
		}
	}
}
