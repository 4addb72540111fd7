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
	Binary      // bytes, sent to clients in base64
	Bundle      // named fields, sent to clients as a string that contains a JSON object
)

// A Value is a secret in a snapshot. Its bytes are valid until the snapshot is released.
type Value struct {
	Kind Kind
	// JSON is the value in the form in which it is sent to clients. This form is a JSON
	// string, including its quotes.
	JSON []byte
	// Since is the number of the generation in which the value changed last.
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
	since      uint64 // the generation in which the value changed last
}

// A Snapshot is one complete, immutable set of secrets. It counts its references, and the
// last Release wipes its memory. Without this count, the memory could be wiped while a
// slow reader still uses it, and a client would receive wiped memory.
type Snapshot struct {
	arena      *secmem.Arena
	secrets    map[schema.SecretName]location
	generation uint64
	loadedAt   time.Time
	references atomic.Int64
}

// newSnapshot returns a snapshot with one reference. The snapshot then owns the arena.
func newSnapshot(arena *secmem.Arena, secrets map[schema.SecretName]location) *Snapshot {
	s := &Snapshot{arena: arena, secrets: secrets, loadedAt: time.Now().UTC()}
	s.references.Store(1)
	return s
}

// Lookup returns the secret with this name, and reports whether the secret exists.
func (s *Snapshot) Lookup(name schema.SecretName) (Value, bool) {
	l, ok := s.secrets[name]
	if !ok {
		return Value{}, false
	}
	return Value{l.kind, s.bytesAt(l), l.since}, true
}

// Generation returns the number of the snapshot. For a nil snapshot, it returns 0.
func (s *Snapshot) Generation() uint64 {
	if s == nil {
		return 0
	}
	return s.generation
}

// Release releases a reference that Acquire returned. If s is nil, Release does nothing.
func (s *Snapshot) Release() {
	if s != nil && s.references.Add(-1) == 0 {
		s.arena.Free()
	}
}

func (s *Snapshot) info() Info {
	return Info{s.generation, len(s.secrets), s.loadedAt, s.arena.Kind()}
}

func (s *Snapshot) bytesAt(l location) []byte { return s.arena.Bytes()[l.start:l.end] }

// setGeneration sets the number of the snapshot. For each secret, it also stores the number
// of the generation in which the value changed last. Later code can find changed values by
// comparing these numbers, even if the old values are already wiped. previous is the
// preceding snapshot or nil. The calling function must have a reference to previous.
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
