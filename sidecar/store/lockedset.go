package store

import (
	"bytes"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
)

// A LockedSet contains all secrets of a store in locked memory. It contains them only once,
// as the line of a push request.
type LockedSet struct {
	arena *secmem.Arena
	line  []byte // a part of arena
	names []schema.SecretName
}

// PushLine returns the line of the request that pushes the set to a broker. The line ends
// with a newline. It is valid until Free.
func (s *LockedSet) PushLine() []byte { return s.line }

// Names returns the sorted names of the secrets. They are valid even after Free.
func (s *LockedSet) Names() []schema.SecretName { return s.names }

// Memory returns how the memory of the set is protected.
func (s *LockedSet) Memory() schema.Memory { return s.arena.Kind() }

// Equal reports whether s and other contain the same names with the same values.
func (s *LockedSet) Equal(other *LockedSet) bool { return bytes.Equal(s.line, other.line) }

// Free wipes and frees the memory of the set. It has no effect if s is nil.
func (s *LockedSet) Free() {
	if s != nil {
		s.arena.Free()
		s.line = nil
	}
}

// A LockedReading is a Reading whose set is in locked memory.
type LockedReading struct {
	Set *LockedSet
	State
}
