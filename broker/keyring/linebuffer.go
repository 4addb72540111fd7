package keyring

import (
	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/schema"
)

// A LineBuffer provides memory of package secmem into which the requests of an admin
// connection are read. Therefore a push request with its secrets is not on the Go heap. A
// LineBuffer is not safe for concurrent use.
//
// The buffer has one page of its own for short lines. A longer line gets spare memory, which an
// earlier request line or snapshot used. If there is no spare memory that is large enough, the
// longer line gets new memory.
type LineBuffer struct {
	spare  *spareMemory
	page   *secmem.Arena // nil until the first Grow
	larger *secmem.Arena // memory for a line that is longer than page; nil while page is used
}

// Grow provides at least size bytes of memory for a wire.Reader. It copies pending to the start of
// this memory, and then wipes the memory that the previous call of Grow returned. It does not wipe
// memory that Take has returned, and not the buffer's page if it returns the page again. Grow
// fails only if there is not enough memory.
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
		// While the reader reads a long line, it calls Grow with twice the previous size
		// each time. Double the size of new memory once more, so that the reader calls Grow
		// less often. Getting new memory takes much longer than reading into the memory.
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

// Take returns the memory that contains the current line if the line is too long for the
// buffer's own page. The memory then belongs to the calling function, which must later pass the
// memory to Return. The next call of Grow provides other memory. If the line is in the buffer's
// own page, Take returns nil.
func (b *LineBuffer) Take() *secmem.Arena {
	larger := b.larger
	b.larger = nil
	return larger
}

// Return wipes memory that Take has returned. The keyring then keeps this memory for later
// pushes, or frees the memory.
func (b *LineBuffer) Return(arena *secmem.Arena) { b.spare.put(arena, len(arena.Bytes())) }

// Free wipes the memory of the buffer. It frees the page. The keyring keeps the other memory for
// later pushes, or frees it. Free does nothing with memory that Take has returned.
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
