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
			t.Errorf("New(%d) has %d bytes", size, len(mem))
		}
		if len(bytes.TrimLeft(mem, "\x00")) > 0 {
			t.Error("new memory is not zero")
		}
		for i := range mem {
			mem[i] = 'x'
		}
		a.Trim(page + 1)
		if want := min(len(mem), 2*page); len(a.Bytes()) != want || a.Bytes()[want-1] != 'x' {
			t.Errorf("Trim leaves %d bytes of %d, want %d", len(a.Bytes()), len(mem), want)
		}
		a.Free()
		if a.Bytes() != nil {
			t.Error("Free leaves bytes")
		}
		a.Free() // a second time is nothing
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
	t.Errorf("kind %q", kind)
}

// TestFreeUnmapsMemory takes and frees more than could be held at once.
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
			t.Fatalf("the memory became %s, from %s: something is not given back", a.Kind(), first.Kind())
		}
		a.Trim(1)
		a.Free()
	}
}
