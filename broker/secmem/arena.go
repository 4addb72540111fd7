package secmem

import (
	"os"

	"github.com/keyhatch/keyhatch/schema"
)

// An Arena is one piece of memory for secrets. Its bytes must not be used after
// Free. An Arena is not safe for concurrent use.
//
// New, TrimTo, and Free are in mapped.go. The race detector does not see mapped
// memory, so heap.go has them for the race build.
type Arena struct {
	mem  []byte
	kind schema.Memory
}

// Bytes returns all memory of the arena: at least as many bytes as were requested,
// which are zero at first.
func (a *Arena) Bytes() []byte { return a.mem }

// Kind returns how the memory is protected.
func (a *Arena) Kind() schema.Memory { return a.kind }

// roundToPages rounds a size in bytes up to whole pages, at least one.
func roundToPages(size int) int {
	page := os.Getpagesize()
	return max(1, (size+page-1)/page) * page
}
