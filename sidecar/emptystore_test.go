package sidecar

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

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
		if got := h.health(); !strings.Contains(got, "0 names in the store, 1 in the broker") {
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

// TestReplacedEmptyStoreKeepsSecrets replaces the directory of the store with an empty
// directory. It checks that the broker keeps the secrets until the directory has content, or
// until the owner has cleared the broker.
func TestReplacedEmptyStoreKeepsSecrets(t *testing.T) {
	testReplacedStore(t, func(h *testHost) {
		if err := os.Rename(h.store, h.store+time.Now().Format(".150405.000000000")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(h.store, 0o700); err != nil {
			t.Fatal(err)
		}
	})
}

// TestUnmountedStoreKeepsSecrets is like TestReplacedEmptyStoreKeepsSecrets, but it unmounts the
// file system of the store.
func TestUnmountedStoreKeepsSecrets(t *testing.T) {
	if !runInNamespaces(t, syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS) {
		return
	}
	testReplacedStore(t, func(h *testHost) {
		if err := unix.Unmount(h.store, unix.MNT_DETACH); err == nil {
			return
		}
		if err := unix.Mount("tmpfs", h.store, "tmpfs", 0, "mode=700"); err != nil {
			t.Fatal(err)
		}
	})
}

func testReplacedStore(t *testing.T, replace func(*testHost)) {
	const isReplaced = "is empty, and it is not the directory that was read before"
	h := newTestHost(t)
	replace(h)
	h.writeSecret("A", tripwire)
	h.writeSecret("B", tripwire)
	r := h.runSidecar(func(c *Config) { c.Poll = 10 * time.Millisecond })
	h.waitForNames("A", "B")
	replace(h)
	r.waitForLog(h, isReplaced)
	h.server.Close() // a restarted broker gets the old secrets, too
	h.startBroker()
	h.waitForNames("A", "B")
	if got := h.health(); !strings.Contains(got, "0 names in the store, 2 in the broker") {
		t.Errorf("CheckHealth returned %q", got)
	}
	replace(h)
	h.writeSecret("A", tripwire)
	h.waitForNames("A")

	r.log.reset()
	replace(h)
	r.waitForLog(h, isReplaced)
	h.waitForNames("A")
	h.clearBroker()
	r.waitForLog(h, "the store is readable again")
	h.server.Close()
	h.startBroker()
	h.waitForGeneration(1)
	h.waitForNames()

	// If all files of the same directory are removed, the empty set is pushed.
	h.writeSecret("A", tripwire)
	h.waitForNames("A")
	os.Remove(h.store + "/A")
	h.waitForNames()
}
