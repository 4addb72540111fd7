package keyring

import (
	"bytes"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
)

// A Kind is the form of a secret.
type Kind uint8

// The kinds of secrets.
const (
	Text   Kind = iota
	Binary      // sent in base64
	Bundle      // named fields, sent as a JSON object in a string
)

// A Value is a secret in a snapshot. Its bytes may be used until the snapshot is
// released.
type Value struct {
	Kind Kind
	// JSON is the value as it is sent: a JSON string with its quotes.
	JSON []byte
	// Since is the generation that changed the value last.
	Since uint64
}

// Info describes a snapshot.
type Info struct {
	Generation  uint64 // 0 if no secrets are loaded
	SecretCount int
	LoadedAt    time.Time
	Memory      schema.Memory
}

// A location is the place of a secret in the arena of a snapshot.
type location struct {
	kind       Kind
	start, end int
	since      uint64 // the generation that changed the value last
}

// A Snapshot is one complete, immutable set of secrets. It is reference-counted:
// the last Release wipes its memory. Without the count, a slow reader would be
// sent wiped memory.
type Snapshot struct {
	arena      *secmem.Arena
	secrets    map[schema.SecretName]location
	generation uint64
	loadedAt   time.Time
	references atomic.Int64
}

// newSnapshot returns a snapshot with one reference. It takes over the arena.
func newSnapshot(arena *secmem.Arena, secrets map[schema.SecretName]location) *Snapshot {
	s := &Snapshot{arena: arena, secrets: secrets, loadedAt: time.Now().UTC()}
	s.references.Store(1)
	return s
}

// Lookup returns a secret.
func (s *Snapshot) Lookup(name schema.SecretName) (Value, bool) {
	l, ok := s.secrets[name]
	if !ok {
		return Value{}, false
	}
	return Value{l.kind, s.bytesAt(l), l.since}, true
}

// Generation returns the number of the snapshot. It is 0 for a nil snapshot.
func (s *Snapshot) Generation() uint64 {
	if s == nil {
		return 0
	}
	return s.generation
}

// Release gives up a reference that Acquire returned. A nil snapshot needs none.
func (s *Snapshot) Release() {
	if s != nil && s.references.Add(-1) == 0 {
		s.arena.Free()
	}
}

func (s *Snapshot) info() Info {
	return Info{s.generation, len(s.secrets), s.loadedAt, s.arena.Kind()}
}

func (s *Snapshot) bytesAt(l location) []byte { return s.arena.Bytes()[l.start:l.end] }

// setGeneration numbers the snapshot, and records for each secret which generation
// changed its value last. Later snapshots can then be compared with this one by
// number, even after its values are wiped. The caller holds a reference to previous, which
// may be nil.
func (s *Snapshot) setGeneration(generation uint64, previous *Snapshot) {
	s.generation = generation
	for name, l := range s.secrets {
		l.since = generation
		if previous != nil {
			if old, ok := previous.secrets[name]; ok && old.kind == l.kind && bytes.Equal(previous.bytesAt(old), s.bytesAt(l)) {
				l.since = old.since
			}
		}
		s.secrets[name] = l
	}
}
