package keyring

import (
	"bytes"
	"strings"
	"testing"
)

// TestSpareMemory checks that two arenas are used in turns, and that the memory of a released
// snapshot contains no old value. After a clear, the keyring must not keep any memory, even
// if a slow reader releases the last snapshot.
func TestSpareMemory(t *testing.T) {
	k := New()
	push := func(value string) *Snapshot {
		t.Helper()
		snapshot, err := parseLine(k, []byte(`{"secrets":{"A":"`+value+`"}}`))
		if err != nil {
			t.Fatal(err)
		}
		k.replace(snapshot)
		return snapshot
	}
	first := push("TRIPWIRE" + strings.Repeat("x", 5000)).arena
	second := push("TRIPWIRE").arena
	if k.spare.arena != first || len(bytes.Trim(first.Bytes(), "\x00")) > 0 {
		t.Error("after the second push, the spare memory is not the wiped memory of the first snapshot")
	}
	if third := push("TRIPWIRE").arena; third != first {
		t.Error("the third push did not use the spare memory")
	}
	if k.spare.arena != second || len(bytes.Trim(second.Bytes(), "\x00")) > 0 {
		t.Error("after the third push, the spare memory is not the wiped memory of the second snapshot")
	}
	reader := k.acquire()
	push(strings.Repeat("x", len(second.Bytes()))) // too large for the spare memory
	if second.Bytes() != nil || k.spare.arena != nil {
		t.Error("a push did not free spare memory that was too small")
	}
	k.Clear()
	reader.Release()
	if k.spare.arena != nil || first.Bytes() != nil {
		t.Error("the keyring keeps memory after a clear")
	}
}
