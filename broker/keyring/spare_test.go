package keyring

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// isWiped reports whether all bytes of an arena are zero. It returns false for a freed arena.
func isWiped(arena *secmem.Arena) bool {
	return arena.Bytes() != nil && len(bytes.Trim(arena.Bytes(), "\x00")) == 0
}

// TestSpareMemory pushes several times. Each push must use the wiped memory of an older snapshot if
// this memory is large enough. After a clear, the keyring must not keep any memory, even if a slow
// reader releases the last snapshot after the clear.
func TestSpareMemory(t *testing.T) {
	k := New()
	push := func(value string) *secmem.Arena {
		t.Helper()
		snapshot, err := parseLine(k, []byte(`{"secrets":{"A":"`+value+`"}}`))
		if err != nil {
			t.Fatal(err)
		}
		k.replace(snapshot)
		return snapshot.arena
	}
	value := "TRIPWIRE" + strings.Repeat("x", 5000)
	first := push(value)
	second := push(value)
	if !slices.Equal(k.spare.arenas, []*secmem.Arena{first}) || !isWiped(first) {
		t.Error("after the second push, the spare memory is not the wiped memory of the first snapshot")
	}
	if third := push(value); third != first {
		t.Error("the third push did not use the spare memory")
	}
	if !slices.Equal(k.spare.arenas, []*secmem.Arena{second}) || !isWiped(second) {
		t.Error("after the third push, the spare memory is not the wiped memory of the second snapshot")
	}
	large := push(value + strings.Repeat("x", 4*len(second.Bytes()))) // too large for the spare memory
	if second.Bytes() != nil {
		t.Error("a push did not free spare memory that was too small")
	}
	for range 3 {
		push("x")
	}
	if large.Bytes() != nil {
		t.Error("after pushes of a small secret, the keyring keeps the memory of a large one")
	}
	current := k.acquire()
	spares := slices.Clone(k.spare.arenas)
	if k.Clear(); len(spares) == 0 {
		t.Fatal("there was no spare memory before the clear")
	}
	memory := current.arena
	current.Release()
	for _, arena := range append(spares, memory) {
		if arena.Bytes() != nil {
			t.Error("the keyring keeps memory after a clear")
		}
	}
}

// TestLineBuffer reads long and short requests as an admin connection does. The third long line
// must get the memory of the second long line. All memory that the keyring keeps must be wiped.
func TestLineBuffer(t *testing.T) {
	k := New()
	buffer := k.NewBuffer()
	long := `{"op":"push-creds","secrets":{"A":"TRIPWIRE` + strings.Repeat("x", 60_000) + `"}}`
	short := `{"op":"push-creds","secrets":{"A":"TRIPWIRE"}}`
	var lines []io.Reader // the client sends each line after the answer to the previous line
	for range 3 {
		lines = append(lines, strings.NewReader(long+"\n"), strings.NewReader(short+"\n"))
	}
	lines = append(lines, strings.NewReader("TRIPWIRE"))
	reader := wire.NewReader(io.MultiReader(lines...), schema.MaxPush, buffer.Grow)
	var longLines []*secmem.Arena
	for i := range 6 {
		line, err := reader.ReadLine()
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{long, short}[i%2]; string(line) != want {
			t.Fatalf("line %d is %.50q, want %.50q", i, line, want)
		}
		request, ok := k.ParseUsual(line)
		if !ok {
			t.Fatal("ParseUsual refuses the line")
		}
		arena := buffer.Take()
		if (arena != nil) != (string(line) == long) {
			t.Errorf("Take returned a wrong result for line %d", i)
		}
		if arena != nil {
			if err := reader.Detach(); err != nil {
				t.Fatal(err)
			}
			if _, err := k.Push(request); err != nil {
				t.Fatal(err)
			}
			longLines = append(longLines, arena)
			buffer.Return(arena)
			if n := len(k.spare.arenas); n > maxSpares {
				t.Errorf("the keyring keeps %d arenas, want at most %d", n, maxSpares)
			}
		}
		clear(line)
		for _, spare := range k.spare.arenas {
			if !isWiped(spare) {
				t.Error("spare memory is not wiped")
			}
		}
	}
	if longLines[1] != longLines[2] {
		t.Error("the third long line did not get the memory of the second one")
	}
	page := buffer.page.Bytes()
	if _, err := reader.ReadLine(); err == nil || !bytes.Contains(page, []byte("TRIPWIRE")) {
		t.Fatal("the rest of the stream is not in the page of the buffer")
	}
	buffer.Free()
	if buffer.page != nil {
		t.Error("Free did not free the page of the buffer")
	}
}

// TestNewMemoryAfterSpareMemory makes a LineBuffer provide more memory than the spare memory has.
// The LineBuffer must free the spare memory. Otherwise, the spare memory and the new memory
// together could exceed the limit of locked memory.
func TestNewMemoryAfterSpareMemory(t *testing.T) {
	k := New()
	for range 2 {
		snapshot, err := parseLine(k, []byte(`{"secrets":{"A":"x"}}`))
		if err != nil {
			t.Fatal(err)
		}
		k.replace(snapshot)
	}
	spare := k.spare.arenas[0]
	buffer := k.NewBuffer()
	defer buffer.Free()
	if _, err := buffer.Grow(nil, 2*len(spare.Bytes())); err != nil {
		t.Fatal(err)
	}
	if spare.Bytes() != nil {
		t.Error("a line got new memory, but the keyring keeps spare memory that was too small")
	}
}
