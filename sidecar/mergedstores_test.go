package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

// runWithTwoStores starts a sidecar with the directories a and b as stores. Each directory contains two
// secrets. Run's channel PushNow is signals.
func (h *testHost) runWithTwoStores(signals chan os.Signal) (r runningSidecar, a, b string) {
	h.t.Helper()
	a, b = h.dir+"/a", h.dir+"/b"
	for _, path := range []string{a + "/A1", a + "/A2", b + "/B1", b + "/B2"} {
		storetest.WriteFile(path, tripwire)
	}
	r = h.runSidecar(func(c *Config) {
		c.Store, c.PushNow = store.Merged{store.Dir{Path: a}, store.Dir{Path: b}}, signals
		c.Poll = 50 * time.Millisecond
	})
	h.waitForNames("A1", "A2", "B1", "B2")
	return r, a, b
}

// An unstableStore changes during every attempt to read it.
type unstableStore struct{ store.Store }

func (unstableStore) Read(context.Context, *store.Reading) (*store.Reading, error) {
	return nil, fmt.Errorf("A: %w", store.ErrUnstable)
}

// TestUnstableStoreDoesNotDelayOtherStores lets one of two stores change all the time. It checks that a
// removal and a change in the other store are pushed, and that the unstable store is used again
// when it has stopped changing.
func TestUnstableStoreDoesNotDelayOtherStores(t *testing.T) {
	h := newTestHost(t)
	a, b := h.dir+"/a", h.dir+"/b"
	for _, path := range []string{a + "/A1", a + "/A2", b + "/B1", b + "/B2"} {
		storetest.WriteFile(path, tripwire)
	}
	unstable := &switchableStore{good: store.Dir{Path: a}}
	r := h.runSidecar(func(c *Config) { c.Store = store.Merged{unstable, store.Dir{Path: b}} })
	h.waitForNames("A1", "A2", "B1", "B2")
	unstable.set(unstableStore{})
	os.Remove(a + "/A2")
	os.Remove(b + "/B1")
	h.waitForNames("A1", "A2", "B2")
	storetest.WriteFile(b+"/B3", tripwire)
	h.waitForNames("A1", "A2", "B2", "B3")
	unstable.set(nil) // causes no file event
	h.waitForNames("A1", "B2", "B3")
	if text := r.log.String(); strings.Contains(text, "level=WARN") || strings.Contains(text, "level=ERROR") {
		t.Errorf("the sidecar logged a problem of a store that was unstable for a short time:\n%s", text)
	}
}

// TestUnstableStoreIsReported checks that the sidecar logs a store that has been unstable for
// unstableGracePeriod, and the name of the store.
func TestUnstableStoreIsReported(t *testing.T) {
	log := &logBuffer{}
	unstable := &switchableStore{good: store.Dir{Path: t.TempDir()}}
	read := readInProcess(store.Merged{unstable, store.Dir{Path: t.TempDir()}})
	reader := newStoreReader(nil, read, nil, slog.New(slog.NewTextHandler(log, nil)))
	defer reader.close()
	accept := func() (retryDelay time.Duration) {
		t.Helper()
		reading, err := read(t.Context(), reader.lastGood)
		if err != nil {
			t.Fatal(err)
		}
		return reader.acceptResult(t.Context(), readResult{reading: reading})
	}
	accept()
	unstable.set(unstableStore{})
	if accept() == 0 || log.String() != "" {
		t.Errorf("the sidecar does not read the store again soon, or it logged an unstable store immediately: %q", log)
	}
	reader.unusable["store 1"].since = time.Now().Add(-unstableGracePeriod)
	accept()
	accept()
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=WARN") || !strings.Contains(text, "stop the program that changes the store") {
		t.Errorf("the sidecar logged %q", text)
	}
	unstable.set(nil)
	accept()
	if !strings.Contains(log.String(), "the store is readable again") {
		t.Errorf("the sidecar did not log the end of the problem: %q", log)
	}
}

// TestAllStoresFailIndependently makes both of two stores unreadable and then corrects one of them. The
// sidecar must log both problems, push a removal in the corrected store, and keep the secrets of the
// store that is still unreadable.
func TestAllStoresFailIndependently(t *testing.T) {
	h := newTestHost(t)
	r, a, b := h.runWithTwoStores(nil)
	for _, dir := range []string{a, b} {
		if err := os.Rename(dir, dir+".hidden"); err != nil {
			t.Fatal(err)
		}
	}
	r.waitForLog(h, a+" does not exist")
	r.waitForLog(h, b+" does not exist")
	h.waitUntil("the broker knows both problems", func() bool { return h.status().StoreProblems == 2 })
	os.Remove(b + ".hidden/B1")
	if err := os.Rename(b+".hidden", b); err != nil {
		t.Fatal(err)
	}
	h.waitForNames("A1", "A2", "B2")
	h.waitUntil("one problem has ended", func() bool { return h.status().StoreProblems == 1 })
}

// TestDuplicateNameDoesNotDelayOtherChanges creates the same name in two stores. The broker must keep
// the old value of this secret. The sidecar must push all other changes, and also push the secret again
// when only one store contains it.
func TestDuplicateNameDoesNotDelayOtherChanges(t *testing.T) {
	h := newTestHost(t)
	project := h.registerProject("A1", "A2", "B2", "X")
	r, a, b := h.runWithTwoStores(nil)
	storetest.WriteFile(b+"/A1", "other")
	r.waitForLog(h, "a secret is in two stores")
	r.waitForLog(h, "store 1, store 2: A1")
	h.waitUntil("the broker knows that the store has a problem", func() bool { return h.status().StoreProblems == 1 })
	os.Remove(b + "/B1")
	storetest.WriteFile(a+"/A2", "changed")
	h.waitForValues(project, map[schema.SecretName]string{"A1": tripwire, "A2": "changed", "B2": tripwire})
	h.waitForNames("A1", "A2", "B2")

	// Create the same new name in both stores in one step. Without an old value, the broker must not
	// get this secret.
	storetest.WriteFile(h.dir+"/X", "one")
	for _, path := range []string{a + "/X", b + "/X"} {
		if err := os.Symlink(h.dir+"/X", path); err != nil {
			t.Fatal(err)
		}
	}
	r.waitForLog(h, "store 1, store 2: X")
	h.waitUntil("the broker knows both problems", func() bool { return h.status().StoreProblems == 2 })

	// Make one of the two stores with the duplicate names unreadable.
	if err := os.Rename(a, a+".hidden"); err != nil {
		t.Fatal(err)
	}
	r.waitForLog(h, a+" does not exist")
	os.Remove(b + "/B2")
	h.waitUntil("B2 is removed", func() bool { return h.status().SecretCount <= 3 })
	h.waitUntil("the broker knows three problems", func() bool { return h.status().StoreProblems >= 2 })
	if err := os.Rename(a+".hidden", a); err != nil {
		t.Fatal(err)
	}

	os.Remove(a + "/A1")
	os.Remove(a + "/X")
	h.waitForValues(project, map[schema.SecretName]string{"A1": "other", "A2": "changed", "X": "one"})
	r.waitForLog(h, "the secret is not in two stores any more")
	os.Remove(b + "/A1")
	h.waitForNames("A2", "X")
	h.waitUntil("all problems have ended", func() bool { return h.status().StoreProblems == 0 })
}

// TestDuplicateNameInFirstReadIsAnError starts a sidecar with a name in two stores. The sidecar must push
// nothing, because it does not know which of the two values is the right one.
func TestDuplicateNameInFirstReadIsAnError(t *testing.T) {
	h := newTestHost(t)
	a, b := h.dir+"/a", h.dir+"/b"
	for _, path := range []string{a + "/A", b + "/A", b + "/B"} {
		storetest.WriteFile(path, tripwire)
	}
	r := h.runSidecar(func(c *Config) { c.Store = store.Merged{store.Dir{Path: a}, store.Dir{Path: b}} })
	r.waitForLog(h, "A is in two stores")
	h.waitForNames()
	os.Remove(a + "/A")
	h.waitForNames("A", "B")
}

// TestReplacedStoreDoesNotDelayOtherStores replaces one of two stores by an empty directory. The broker must
// keep the secrets of this store until the owner confirms, and a removal in the other store must be pushed.
// The confirmation must not apply to the other store, which is replaced later.
func TestReplacedStoreDoesNotDelayOtherStores(t *testing.T) {
	h := newTestHost(t)
	signals := make(chan os.Signal)
	r, a, b := h.runWithTwoStores(signals)
	replace := func() {
		t.Helper()
		if err := os.Rename(a, a+time.Now().Format(".150405.000000000")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(a, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	replace()
	r.waitForLog(h, "one of the stores was replaced, and secrets are missing")
	r.waitForLog(h, "run kill -USR1")
	h.waitUntil("the broker knows that the store has a problem", func() bool { return h.status().StoreProblems == 1 })
	os.Remove(b + "/B1")
	h.waitForNames("A1", "A2", "B2")

	// Hide the other store, and then confirm with SIGUSR1. The confirmation must apply only to the
	// replaced store, so the broker must keep the secrets of the hidden store.
	if err := os.Rename(b, b+".hidden"); err != nil {
		t.Fatal(err)
	}
	r.waitForLog(h, b+" does not exist")
	signals <- syscall.SIGUSR1
	h.waitForNames("B2")
	r.waitForLog(h, "the store is readable again")
	if err := os.Mkdir(b, 0o700); err != nil {
		t.Fatal(err)
	}
	r.log.reset()
	r.waitForLog(h, b+": another directory has replaced the directory")
	h.waitForNames("B2")
	h.clearBroker()
	h.waitUntil("the sidecar has pushed the empty set", func() bool { return h.status().Generation > 0 && h.status().SecretCount == 0 })
}

// A hungStore is a store whose WatchDirs does not return until hangs is closed.
type hungStore struct {
	store.Store
	hangs chan struct{}
}

func (h hungStore) WatchDirs() []string { <-h.hangs; return nil }

// TestHungStoreDoesNotDelayReads reads a store whose WatchDirs does not return. Only the first read may
// wait for maxPrepareTime. After WatchDirs has returned, the next read must receive the directories.
func TestHungStoreDoesNotDelayReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		read := func(context.Context, store.LockedReading) (store.LockedReading, error) {
			reads++
			return store.LockedReading{}, nil
		}
		hung := hungStore{hangs: make(chan struct{})}
		reader := newStoreReader(hung, read, &watcher{}, discardLogger())
		start := time.Now()
		for range 3 {
			reader.read(t.Context())
		}
		if elapsed := time.Since(start); elapsed != maxPrepareTime || reads != 3 {
			t.Errorf("%d reads took %v; want 3 reads in %v", reads, elapsed, maxPrepareTime)
		}
		close(hung.hangs)
		synctest.Wait()
		reader.read(t.Context())
		if reader.preparing != nil {
			t.Error("the reader has not received the directories, although the store answers")
		}
	})
}
