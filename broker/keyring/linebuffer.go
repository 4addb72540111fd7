package keyring

import "github.com/keyhatch/keyhatch/broker/secmem"

// A LineBuffer provides locked memory into which an admin connection is read. Therefore
// the secrets of a push are never in ordinary memory. A LineBuffer is not safe for
// concurrent use.
type LineBuffer struct{ arena *secmem.Arena }

// Grow allocates at least size bytes of locked memory for a wire.Reader. It copies pending to
// the start of the new memory. Then it frees the old memory, unless Take has returned the old
// memory.
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

// Take returns the current memory. The memory then belongs to the calling function, which
// must free it. The next call of Grow allocates new memory.
func (b *LineBuffer) Take() *secmem.Arena {
	arena := b.arena
	b.arena = nil
	return arena
}

// Free wipes and frees the current memory, if there is any.
func (b *LineBuffer) Free() {
	if b.arena != nil {
		b.arena.Free()
		b.arena = nil
	}
}
