package keyring

import "github.com/keyhatch/keyhatch/broker/secmem"

// A LineBuffer provides the locked memory that an admin connection is read into,
// so that a push is never in any other memory. It is not safe for concurrent use.
type LineBuffer struct{ arena *secmem.Arena }

// Grow is the source of memory of a wire.Reader. It returns at least size bytes
// that begin with pending, and frees the memory that pending is in, unless the
// buffer no longer owns it.
func (b *LineBuffer) Grow(pending []byte, size int) ([]byte, error) {
	larger, err := secmem.New(size)
	if err != nil {
		return nil, err
	}
	copy(larger.Bytes(), pending)
	b.Free()
	b.arena = larger
	return larger.Bytes(), nil
}

// Take returns the current memory, which then belongs to the caller. The next
// call of Grow allocates new memory.
func (b *LineBuffer) Take() *secmem.Arena {
	arena := b.arena
	b.arena = nil
	return arena
}

// Free wipes and frees the memory.
func (b *LineBuffer) Free() {
	if b.arena != nil {
		b.arena.Free()
		b.arena = nil
	}
}
