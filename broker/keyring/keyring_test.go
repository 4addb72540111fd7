package keyring

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"
)

// TestLastReaderWipesSnapshot checks that the memory of a replaced snapshot is wiped when
// its last reader releases it, and not before.
func TestLastReaderWipesSnapshot(t *testing.T) {
	k := New()
	first, err := parseLine(k, []byte(`{"secrets":{"A":"TRIPWIRE"}}`))
	if err != nil {
		t.Fatal(err)
	}
	second, err := parseLine(k, []byte(`{"secrets":{}}`))
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
	if first.arena == nil {
		t.Fatal("the snapshot was wiped while a reader used it")
	}
	if value, ok := slowReader.Lookup("A"); !ok || string(value.Line) != `{"ok":true,"value":"TRIPWIRE"}`+"\n" || string(value.Fields()) != `"value":"TRIPWIRE"` {
		t.Error("the value changed while a reader used it")
	}
	memory := first.arena.Bytes() // the keyring keeps this memory for the next push
	slowReader.Release()
	if first.arena != nil || bytes.Contains(memory, []byte("TRIPWIRE")) {
		t.Error("the snapshot was not wiped when the last reader released it")
	}
	if k.Clear(); second.arena != nil {
		t.Error("Clear did not wipe the snapshot")
	}
}

// TestReadersDuringPushes acquires snapshots in four goroutines while it pushes and clears.
// A reader must never get wiped memory. It must also never get a snapshot that is older than the
// last push that ended before the reader called Acquire.
func TestReadersDuringPushes(t *testing.T) {
	k := New()
	var acknowledged atomic.Uint64
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				before := acknowledged.Load()
				snapshot := k.View().Acquire()
				if snapshot == nil { // after a clear
					continue
				}
				if snapshot.Generation() < before {
					t.Errorf("got generation %d, but push %d was already acknowledged", snapshot.Generation(), before)
				}
				if value, ok := snapshot.Lookup("A"); !ok || string(value.Fields()) != `"value":"TRIPWIRE"` {
					t.Errorf("got the line %q", value.Line)
				}
				snapshot.Release()
			}
		})
	}
	for range 500 {
		snapshot, err := parseLine(k, []byte(`{"secrets":{"A":"TRIPWIRE"}}`))
		if err != nil {
			t.Fatal(err)
		}
		info := k.replace(snapshot)
		acknowledged.Store(info.Generation)
		if info.Generation%10 == 0 {
			k.Clear()
		}
	}
	close(done)
	readers.Wait()
	if k.Clear(); k.View().Acquire() != nil {
		t.Error("Acquire returned a snapshot after a clear")
	}
}

// TestOldSnapshotExpires acquires a snapshot, and then pushes maxOldSnapshots+1 times. The snapshot
// must expire at the last of these pushes, and not earlier.
func TestOldSnapshotExpires(t *testing.T) {
	k := New()
	view := k.View()
	push := func() {
		t.Helper()
		snapshot, err := parseLine(k, []byte(`{"secrets":{}}`))
		if err != nil {
			t.Fatal(err)
		}
		k.replace(snapshot)
	}
	push()
	old := view.Acquire()
	release, isExpired := old.Lease()
	defer release()
	for range maxOldSnapshots {
		push()
		if isExpired() {
			t.Fatal("the snapshot expired too early")
		}
	}
	push()
	if !isExpired() {
		t.Error("the snapshot did not expire")
	}
	current := view.Acquire()
	release, isExpired = current.Lease()
	defer release()
	if isExpired() {
		t.Error("the current snapshot has expired")
	}
	if view.IsCurrent(old) || !view.IsCurrent(current) || view.IsCurrent(nil) {
		t.Error("IsCurrent returned a wrong result")
	}
	if k.Clear(); view.IsCurrent(current) || !view.IsCurrent(nil) {
		t.Error("after a clear, IsCurrent returned a wrong result")
	}
}
