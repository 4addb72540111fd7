package secmem

import (
	"bytes"
	"os"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

func TestArenaSizes(t *testing.T) {
	page := os.Getpagesize()
	for _, size := range []int{0, 1, page, page + 1, 1 << 20} {
		a, err := New(size)
		if err != nil {
			t.Fatal(err)
		}
		mem := a.Bytes()
		if len(mem) < size || len(mem)%page != 0 {
			t.Errorf("New(%d) returned %d bytes, want whole pages with at least the requested size", size, len(mem))
		}
		if len(bytes.TrimLeft(mem, "\x00")) > 0 {
			t.Error("new memory is not zero")
		}
		for i := range mem {
			mem[i] = 'x'
		}
		a.TrimTo(page + 1)
		if want := min(len(mem), 2*page); len(a.Bytes()) != want || a.Bytes()[want-1] != 'x' {
			t.Errorf("after TrimTo, the arena has %d of %d bytes, want %d", len(a.Bytes()), len(mem), want)
		}
		a.Free()
		if a.Bytes() != nil {
			t.Error("after Free, Bytes does not return nil")
		}
		a.Free() // a second Free has no effect
	}
}

func TestProbeReturnsKindOfNew(t *testing.T) {
	kind, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range schema.MemoryKinds {
		if kind == known {
			return
		}
	}
	t.Errorf("Probe returned %q, which is not in MemoryKinds", kind)
}

// TestFreeUnmapsMemory allocates and frees an arena many times. All these arenas together are
// larger than the usual limit of locked memory. So if TrimTo or Free did not unmap memory, the
// limit would be reached, and the kind of memory would change.
func TestFreeUnmapsMemory(t *testing.T) {
	first, err := New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Free()
	for range 64 {
		a, err := New(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		if a.Kind() != first.Kind() {
			t.Fatalf("the kind of memory is %s, want %s: Free or TrimTo does not unmap all memory", a.Kind(), first.Kind())
		}
		a.TrimTo(1)
		a.Free()
	}
}
