//go:build race

package secmem

import (
	"bytes"
	"testing"
)

// TestFreeAndTrimWipeMemory reads memory after TrimTo and Free, and checks that the memory
// is wiped. Reading freed memory is only possible if the arenas are on the heap.
func TestFreeAndTrimWipeMemory(t *testing.T) {
	a, err := New(3 * 4096)
	if err != nil {
		t.Fatal(err)
	}
	mem := a.Bytes()
	copy(mem, bytes.Repeat([]byte("x"), len(mem)))
	a.TrimTo(1)
	if rest := mem[len(a.Bytes()):]; len(rest) == 0 || len(bytes.Trim(rest, "\x00")) > 0 {
		t.Error("TrimTo does not wipe the memory that it frees")
	}
	a.Free()
	if len(bytes.Trim(mem, "\x00")) > 0 {
		t.Error("Free does not wipe the memory")
	}
}
