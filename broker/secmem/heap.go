//go:build race

package secmem

import "github.com/keyhatch/keyhatch/schema"

// New returns an arena on the Go heap, because the race detector does not see mapped memory. If
// one goroutine uses the arena while another goroutine frees the arena, the race detector can
// then report the race.
func New(size int) (*Arena, error) {
	return &Arena{make([]byte, roundToPages(size)), schema.MemoryHeap}, nil
}

// TrimTo reduces the arena to the pages that contain its first size bytes, and wipes all other
// pages. If there are no other pages, TrimTo does nothing.
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
