//go:build race

package secmem

import (
	"bytes"
	"testing"
)

// TestFreeAndTrimWipeMemory looks at memory after it was given back, which only a build
// that backs arenas with the heap can.
func TestFreeAndTrimWipeMemory(t *testing.T) {
	a, err := New(3 * 4096)
	if err != nil {
		t.Fatal(err)
	}
	mem := a.Bytes()
	copy(mem, bytes.Repeat([]byte("x"), len(mem)))
	a.Trim(1)
	if rest := mem[len(a.Bytes()):]; len(rest) == 0 || len(bytes.Trim(rest, "\x00")) > 0 {
		t.Error("Trim does not wipe what it gives back")
	}
	a.Free()
	if len(bytes.Trim(mem, "\x00")) > 0 {
		t.Error("Free does not wipe")
	}
}
