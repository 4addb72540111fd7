package keyring

import (
	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
)

// A LineBuffer provides memory of package secmem into which the requests of an admin
// connection are read. Therefore the secrets of a push are never on the Go heap. A
// LineBuffer is not safe for concurrent use.
//
// The buffer has one page of its own for short lines. A longer line gets spare memory of
// an earlier push or snapshot if this is large enough, and new memory otherwise.
type LineBuffer struct {
	spare  *spareMemory
	page   *secmem.Arena // nil until the first Grow
	larger *secmem.Arena // nil if the connection is read into page
}

// Grow provides at least size bytes of memory for a wire.Reader. It copies pending to the
// start of the memory. Then it wipes the old memory, unless Take has returned the old
// memory.
func (b *LineBuffer) Grow(pending []byte, size int) ([]byte, error) {
	if b.page == nil {
		page, err := secmem.New(minArena)
		if err != nil {
			return nil, err
		}
		b.page = page
	}
	var larger *secmem.Arena
	memory := b.page
	if size > len(b.page.Bytes()) {
		// The reader doubles the size of its buffer. Double new memory once more, because
		// new memory takes much longer than the reading.
		newSize := max(size, min(2*size, schema.MaxPush+1))
		var err error
		if larger, err = b.spare.takeLargest(size, newSize); err != nil {
			return nil, err
		}
		memory = larger
	}
	copy(memory.Bytes(), pending)
	if memory != b.page {
		clear(b.page.Bytes())
	}
	b.freeLarger()
	b.larger = larger
	return memory.Bytes(), nil
}

// Take returns the memory of a long line. The memory then belongs to the calling function,
// which must pass it to Return. The next call of Grow provides other memory. If the line is
// in the buffer's own page, Take returns nil.
func (b *LineBuffer) Take() *secmem.Arena {
	larger := b.larger
	b.larger = nil
	return larger
}

// Return wipes memory that Take has returned. The keyring then keeps the memory for later
// pushes, or frees it.
func (b *LineBuffer) Return(arena *secmem.Arena) { b.spare.put(arena, len(arena.Bytes())) }

// Free wipes and frees the memory of the buffer.
func (b *LineBuffer) Free() {
	b.freeLarger()
	if b.page != nil {
		b.page.Free()
		b.page = nil
	}
}

func (b *LineBuffer) freeLarger() {
	if arena := b.Take(); arena != nil {
		b.Return(arena)
	}
}
