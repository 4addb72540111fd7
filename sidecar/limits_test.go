package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// TestInotifyQueueOverflowLosesNoChange limits the kernel's inotify queue to one event,
// so that the kernel discards many events. It checks that the sidecar still pushes every
// change.
func TestInotifyQueueOverflowLosesNoChange(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	restore := setInotifyLimit(t, "max_queued_events", "1")
	h.runSidecar(nil)
	h.waitForNames("A")
	restore() // the inotify instance of the running sidecar keeps the low limit
	var want []schema.SecretName
	for n := range 300 {
		name := fmt.Sprintf("S%03d", n)
		h.writeSecret("new/"+name, tripwire)
		if err := os.Rename(h.store+"/new/"+name, h.store+"/"+name); err != nil {
			t.Fatal(err)
		}
		want = append(want, schema.SecretName(name))
	}
	os.Remove(h.store + "/A")
	h.waitForNames(want...)
}

// TestPollingWithoutInotifyInstance sets the limit of inotify instances to 0. It checks
// that the sidecar still detects changes of the store with polling.
func TestPollingWithoutInotifyInstance(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	// Restore the limit as soon as possible, because it affects other processes.
	restore := setInotifyLimit(t, "max_user_instances", "0")
	r := h.runSidecar(func(c *Config) { c.Poll = 20 * time.Millisecond })
	r.waitForLog(h, "cannot watch the store for changes; polling still detects changes")
	restore()
	h.waitForNames("A")
	h.writeSecret("B", tripwire)
	h.waitForNames("A", "B")
}

// setInotifyLimit sets a limit that inotify(7) describes. The new limit applies until the
// test calls restore, or until the test ends.
func setInotifyLimit(t *testing.T, name, value string) (restore func()) {
	t.Helper()
	path := "/proc/sys/fs/inotify/" + name
	old, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0o600)
	}
	testenv.Require(t, err == nil, fmt.Sprint("cannot set the limits of inotify: ", err))
	restore = func() { os.WriteFile(path, old, 0o600) }
	t.Cleanup(restore)
	return restore
}

// TestBrokerRestartsWhileStoreChanges changes the store while the broker restarts. It
// checks that the sidecar pushes the current secrets after each restart.
func TestBrokerRestartsWhileStoreChanges(t *testing.T) {
	restarts := 200
	if testing.Short() {
		restarts = 20
	}
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	h.runSidecar(nil)
	h.waitForNames("A")
	want := []schema.SecretName{"A"}
	for n := range restarts {
		h.server.Close()
		if n%4 == 0 {
			name := schema.SecretName(fmt.Sprintf("B%03d", n))
			h.writeSecret(string(name), tripwire)
			want = append(want, name)
			slices.Sort(want)
		}
		h.startBroker()
		h.waitForNames(want...)
	}
}

// TestLargestSetIsPushed checks that the sidecar pushes a set with 5,000 secrets that is
// almost as large as the limit of 1 MiB, and that it pushes a change of this set. The
// sidecar must not push a set that exceeds the limit.
func TestLargestSetIsPushed(t *testing.T) {
	h := newTestHost(t)
	for n := range 5000 {
		h.writeSecret(fmt.Sprintf("S%04d", n), tripwire+strings.Repeat("v", 180))
	}
	r := h.runSidecar(nil)
	h.waitUntil("the broker has 5000 secrets", func() bool { return h.status().SecretCount == 5000 })
	h.writeSecret("S0000", tripwire+"other")
	h.waitForGeneration(2)
	// Write a secret that makes the set too large. The secrets in the broker must not
	// change.
	h.writeSecret("BIG", strings.Repeat("v", schema.MaxPush/2))
	r.waitForLog(h, "the maximum size of a push is 1048576 bytes")
	r.waitForLog(h, "until then, the broker also keeps secrets that you remove from the store")
	if s := h.status(); s.SecretCount != 5000 || s.Generation != 2 {
		t.Errorf("the broker has %d secrets and generation %d, want 5000 secrets and generation 2", s.SecretCount, s.Generation)
	}
}

// TestReadsDoNotGrowHeap reads the store 3,000 times. It checks that the heap does not grow. If each read
// left 1 KiB, the heap would grow by 3 MB.
func TestReadsDoNotGrowHeap(t *testing.T) {
	h := newTestHost(t)
	for n := range 20 {
		h.writeSecret(fmt.Sprintf("S%d", n), tripwire+strings.Repeat("v", 1000))
	}
	// Read the store once before the measurement. This first Read waits until the files
	// have been unchanged for long enough, so all later reads return without waiting.
	if _, err := (store.Dir{Path: h.store}).Read(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	w := newWatcher(discardLogger(), func(string) bool { return false })
	defer w.close()
	reader := newStoreReader(store.Dir{Path: h.store}, readInProcess(store.Dir{Path: h.store}), w, discardLogger())
	for range 100 {
		reader.acceptResult(context.Background(), reader.read(context.Background()))
	}
	before := heapSize()
	for range 3000 {
		reader.acceptResult(context.Background(), reader.read(context.Background()))
	}
	if after := heapSize(); after > before+before/2+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	if count := len(reader.lastGood.Set.Names()); count != 20 {
		t.Errorf("the reader has %d secrets, want 20", count)
	}
}

func heapSize() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func discardLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }
