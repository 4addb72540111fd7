//go:build race

package secmem

import "github.com/keyhatch/keyhatch/schema"

// New returns an arena on the Go heap: the race detector does not see mapped
// memory, and a use after Free shall be a reported race, not a fault.
func New(size int) (*Arena, error) {
	return &Arena{make([]byte, roundToPages(size)), schema.MemoryHeap}, nil
}

// Trim wipes the whole pages beyond the first size bytes.
func (a *Arena) Trim(size int) {
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
