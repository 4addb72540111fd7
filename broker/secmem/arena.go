package secmem

import (
	"os"

	"github.com/keyhatch/keyhatch/schema"
)

// An Arena is one piece of memory for secrets. After Free, do not use the bytes of the arena.
// After TrimTo, do not use the bytes that TrimTo has removed. An Arena is not safe for concurrent
// use.
//
// mapped.go contains New, TrimTo, and Free. In builds with the race detector, heap.go
// contains these functions instead, because the race detector does not see mapped memory.
type Arena struct {
	mem  []byte
	kind schema.Memory
}

// Bytes returns the whole memory of the arena, or nil after Free. The memory has at least the
// size that was passed to New, or to TrimTo if that size was smaller. New sets all bytes to zero.
func (a *Arena) Bytes() []byte { return a.mem }

// Kind returns how the memory of the arena is protected, for example schema.MemoryLocked.
func (a *Arena) Kind() schema.Memory { return a.kind }

// roundToPages rounds a size in bytes up to whole pages. The result is at least one page.
func roundToPages(size int) int {
	page := os.Getpagesize()
	return max(1, (size+page-1)/page) * page
}
