package keyring

import "testing"

// TestLastReaderWipesSnapshot checks that a replaced snapshot is wiped when its
// last reader releases it, and not before.
func TestLastReaderWipesSnapshot(t *testing.T) {
	k := New()
	first, err := parseLine([]byte(`{"secrets":{"A":"TRIPWIRE"}}`))
	if err != nil {
		t.Fatal(err)
	}
	second, err := parseLine([]byte(`{"secrets":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	k.replace(first)
	view := k.View()
	changed := view.Changed()
	reader, slowReader := view.Acquire(), view.Acquire()
	k.replace(second)
	select {
	case <-changed:
	default:
		t.Error("the readers were not told")
	}
	reader.Release()
	if first.arena.Bytes() == nil {
		t.Fatal("wiped under a reader")
	}
	if value, ok := slowReader.Lookup("A"); !ok || string(value.JSON) != `"TRIPWIRE"` {
		t.Error("a reader's bytes changed")
	}
	slowReader.Release()
	if first.arena.Bytes() != nil {
		t.Error("not wiped by the last reader")
	}
	if k.Clear(); second.arena.Bytes() != nil {
		t.Error("not wiped by clear")
	}
}
