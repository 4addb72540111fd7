package broker

import "github.com/keyhatch/keyhatch/broker/secmem"

// A lineBuffer provides the memory an admin connection is read into, so that a
// push never lies anywhere else.
type lineBuffer struct{ arena *secmem.Arena }

// grow is a wire.Reader's source of memory.
func (b *lineBuffer) grow(pending []byte, size int) ([]byte, error) {
	larger, err := secmem.New(size)
	if err != nil {
		return nil, err
	}
	copy(larger.Bytes(), pending)
	b.free()
	b.arena = larger
	return larger.Bytes(), nil
}

// take gives up the arena; the reader must be detached from it next.
func (b *lineBuffer) take() *secmem.Arena {
	arena := b.arena
	b.arena = nil
	return arena
}

func (b *lineBuffer) free() {
	if b.arena != nil {
		b.arena.Free()
		b.arena = nil
	}
}
