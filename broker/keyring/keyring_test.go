package keyring

import "testing"

// TestLastReaderWipesSnapshot checks that the memory of a replaced snapshot is wiped when
// its last reader releases it, and not before.
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
		t.Error("a new snapshot did not close the channel that Changed returned")
	}
	reader.Release()
	if first.arena.Bytes() == nil {
		t.Fatal("the snapshot was wiped while a reader used it")
	}
	if value, ok := slowReader.Lookup("A"); !ok || string(value.JSON) != `"TRIPWIRE"` {
		t.Error("the value changed while a reader used it")
	}
	slowReader.Release()
	if first.arena.Bytes() != nil {
		t.Error("the snapshot was not wiped when the last reader released it")
	}
	if k.Clear(); second.arena.Bytes() != nil {
		t.Error("Clear did not wipe the snapshot")
	}
}

// TestOldSnapshotExpires checks when a reader must release an old snapshot.
func TestOldSnapshotExpires(t *testing.T) {
	k := New()
	view := k.View()
	push := func() {
		t.Helper()
		snapshot, err := parseLine([]byte(`{"secrets":{}}`))
		if err != nil {
			t.Fatal(err)
		}
		k.replace(snapshot)
	}
	push()
	old := view.Acquire()
	defer old.Release()
	for range maxOldSnapshots {
		push()
		if view.IsExpired(old) {
			t.Fatal("the snapshot expired too early")
		}
	}
	push()
	if !view.IsExpired(old) {
		t.Error("the snapshot did not expire")
	}
	current := view.Acquire()
	defer current.Release()
	if view.IsExpired(current) || view.IsExpired(nil) {
		t.Error("the current snapshot has expired")
	}
}
