package sidecar

import (
	"context"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/sidecar/store"

	"golang.org/x/sys/unix"
)

func (h *testHost) clearBroker() {
	h.t.Helper()
	admin := h.dialAdmin()
	defer admin.Close()
	if err := admin.Clear(context.Background()); err != nil {
		h.t.Fatal(err)
	}
}

// TestEmptyStoreAtStartKeepsSecrets starts a sidecar with an empty store while the broker has
// secrets. It checks that the sidecar pushes nothing until the store has content, or until the
// owner has cleared the broker.
func TestEmptyStoreAtStartKeepsSecrets(t *testing.T) {
	for _, confirm := range []bool{true, false} {
		h := newTestHost(t)
		admin := h.dialAdmin()
		if _, err := admin.Push(context.Background(), pushLine("OLD", tripwire)); err != nil {
			t.Fatal(err)
		}
		admin.Close()
		r := h.runSidecar(func(c *Config) { c.Poll = 10 * time.Millisecond })
		r.waitForLog(h, "the store has no secrets, but the broker has secrets")
		r.hideStore(h, h.store) // wait until the sidecar has read the store again
		h.waitForNames("OLD")
		if got := h.health(); !strings.Contains(got, "only in the broker: OLD") {
			t.Errorf("CheckHealth returned %q", got)
		}
		want := h.status().Generation + 1
		if confirm {
			h.clearBroker()
			h.waitUntil("the sidecar has pushed the empty set", func() bool { return h.status().Generation >= want })
			h.waitForNames()
		}
		h.writeSecret("NEW", tripwire)
		h.waitForNames("NEW")
		r.stop()
		for _, text := range []string{"the store has no secrets, but the broker has secrets", "another client"} {
			if n := strings.Count(r.log.String(), text); n > 1 || (n == 1 && text == "another client") {
				t.Errorf("the sidecar logged %q %d times", text, n)
			}
		}
	}
}

// TestReplacedStoreKeepsSecrets replaces the directory of the store with a directory in which secrets
// are missing. It checks that the broker keeps the secrets until no secret is missing, or until the
// owner confirms the removal.
func TestReplacedStoreKeepsSecrets(t *testing.T) {
	testReplacedStore(t, func(h *testHost) {
		if err := os.Rename(h.store, h.store+time.Now().Format(".150405.000000000")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(h.store, 0o700); err != nil {
			t.Fatal(err)
		}
	})
}

// TestStoreCreatedAgainKeepsSecrets is like TestReplacedStoreKeepsSecrets, but it deletes the directory
// first. Many file systems use the inode number of the deleted directory for the new directory.
func TestStoreCreatedAgainKeepsSecrets(t *testing.T) {
	testReplacedStore(t, func(h *testHost) {
		// The sidecar must not see an empty store before the directory is removed.
		next := h.store + ".removed"
		if err := os.Rename(h.store, next); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(next); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(h.store, 0o700); err != nil {
			t.Fatal(err)
		}
	})
}

// TestUnmountedStoreKeepsSecrets is like TestReplacedStoreKeepsSecrets, but it unmounts the file
// system of the store, or mounts a file system over the store.
func TestUnmountedStoreKeepsSecrets(t *testing.T) {
	if !runInNamespaces(t, syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS) {
		return
	}
	var hidden *os.Root // the directory that the mounted file system hides, or nil
	testReplacedStore(t, func(h *testHost) {
		var err error
		if hidden == nil {
			if hidden, err = os.OpenRoot(h.store); err == nil {
				err = unix.Mount("tmpfs", h.store, "tmpfs", 0, "mode=700")
			}
		} else {
			for _, name := range []string{"A", "B", "C"} {
				hidden.Remove(name)
			}
			hidden.Close()
			hidden, err = nil, unix.Unmount(h.store, unix.MNT_DETACH)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}

func testReplacedStore(t *testing.T, replace func(*testHost)) {
	const isReplaced = "the store was replaced, and secrets are missing"
	h := newTestHost(t)
	replace(h)
	for _, name := range []string{"A", "B", "C"} {
		h.writeSecret(name, tripwire)
	}
	signals := make(chan os.Signal)
	var reads atomic.Int64
	r := h.runSidecar(func(c *Config) {
		c.Poll, c.PushNow = 10*time.Millisecond, signals
		read := readInProcess(c.Store)
		c.Read = func(ctx context.Context, previous store.LockedReading) (store.LockedReading, error) {
			defer reads.Add(1)
			return read(ctx, previous)
		}
	})
	// waitForReads waits until the sidecar has read the store that exists now.
	waitForReads := func() {
		t.Helper()
		want := reads.Load() + 3
		h.waitUntil("the sidecar has read the store again", func() bool { return reads.Load() >= want })
	}
	h.waitForNames("A", "B", "C")
	replace(h)
	r.waitForLog(h, isReplaced)
	h.server.Close() // the sidecar must push the old secrets to a restarted broker, too
	h.startBroker()
	h.waitForNames("A", "B", "C")
	h.waitUntil("the broker knows that the store has a problem", func() bool { return h.status().StoreProblems == 1 })
	if got := h.health(); !strings.Contains(got, "only in the broker: A, B, C") {
		t.Errorf("CheckHealth returned %q", got)
	}

	// The broker must keep all secrets until the last missing file exists again.
	h.writeSecret("A", tripwire+"new")
	waitForReads()
	h.waitForNames("A", "B", "C")
	if got := h.health(); !strings.Contains(got, "only in the broker: B, C") {
		t.Errorf("CheckHealth returned %q", got)
	}
	h.writeSecret("B", tripwire)
	waitForReads()
	h.writeSecret("C", tripwire)
	r.waitForLog(h, "the sidecar uses the store again")
	if n := strings.Count(r.log.String(), isReplaced); n != 1 {
		t.Errorf("the sidecar logged %d times that the store was replaced, want 1:\n%s", n, r.log)
	}
	os.Remove(h.store + "/C") // no secret is missing any more, so a removal takes effect
	h.waitForNames("A", "B")

	// The owner confirms that secrets are missing, with a signal or by clearing the broker.
	for _, confirm := range []func(){func() { signals <- syscall.SIGUSR1 }, h.clearBroker} {
		r.log.reset()
		replace(h)
		h.writeSecret("B", tripwire)
		r.waitForLog(h, isReplaced)
		h.waitForNames("A", "B")
		confirm()
		h.waitForNames("B")
		r.waitForLog(h, "the sidecar uses the store again")
		h.writeSecret("A", tripwire)
		h.waitForNames("A", "B")
	}

	// If the owner removes all files but does not replace the directory, the sidecar must push the
	// empty set.
	os.Remove(h.store + "/A")
	os.Remove(h.store + "/B")
	h.waitForNames()
}

// TestConfirmationIsOnlyForReportedStore checks that a confirmation does not apply to a store that
// was replaced again later.
func TestConfirmationIsOnlyForReportedStore(t *testing.T) {
	reader := newStoreReader(nil, nil, nil, discardLogger())
	for _, err := range []error{store.ErrReplaced, fs.ErrNotExist, store.ErrReplaced} {
		reader.acceptResult(context.Background(), readResult{err: err})
		if reader.confirmed {
			t.Errorf("after the error %q, the confirmation for an earlier store applies", err)
		}
		reader.confirmReplaced()
		if got, want := reader.confirmed, err == store.ErrReplaced; got != want {
			t.Errorf("after the error %q, the store is confirmed: %v", err, got)
		}
		if err != store.ErrReplaced {
			continue
		}
		reader.acceptResult(context.Background(), readResult{err: err})
		if !reader.confirmed {
			t.Error("the confirmation has ended although the store is the same")
		}
	}
}

// TestRemovalOfMostSecretsIsReported checks that the removal of most secrets takes effect
// immediately and that the sidecar logs a warning.
func TestRemovalOfMostSecretsIsReported(t *testing.T) {
	const warning = "most secrets were removed from the store"
	h := newTestHost(t)
	for _, name := range []string{"A", "B", "C", "D", "E"} {
		h.writeSecret(name, tripwire)
	}
	r := h.runSidecar(nil)
	h.waitForNames("A", "B", "C", "D", "E")
	// The sidecar waits until the directory has stopped changing, so it sees all removals of one call
	// at once.
	remove := func(names ...string) {
		for _, name := range names {
			os.Remove(h.store + "/" + name)
		}
	}
	remove("A")
	h.waitForNames("B", "C", "D", "E")
	if strings.Contains(r.log.String(), warning) {
		t.Errorf("the sidecar logged the removal of one of five secrets:\n%s", r.log)
	}
	remove("B", "C", "D")
	h.waitForNames("E")
	r.waitForLog(h, warning)
}
