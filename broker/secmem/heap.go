//go:build race

package secmem

import "github.com/keyhatch/keyhatch/schema"

// New returns an arena on the Go heap, because the race detector does not see mapped
// memory. On the heap, the race detector reports a use after Free as a race.
func New(size int) (*Arena, error) {
	return &Arena{make([]byte, roundToPages(size)), schema.MemoryHeap}, nil
}

// TrimTo keeps the first size bytes, and wipes all pages after them.
func (a *Arena) TrimTo(size int) {
	keep := roundToPages(size)
	if keep < len(a.mem) {
		clear(a.mem[keep:])
		a.mem = a.mem[:keep:keep]
	}
}

// Free wipes the memory.
func (a *Arena) Free() {
	clear(a.mem)
	a.mem = nil
}
