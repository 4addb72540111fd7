package sidecar

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
	"golang.org/x/sys/unix"
)

// TestUnmountedBundleKeepsFields unmounts the file system of a bundle. The broker must keep the bundle,
// and the sidecar must log an error, until the owner confirms the removal with a signal. The broker must
// also keep the bundle if an empty file system is mounted over the bundle.
func TestUnmountedBundleKeepsFields(t *testing.T) {
	if !runInNamespaces(t, syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS) {
		return
	}
	h := newTestHost(t)
	bundle := h.store + "/aws"
	if err := os.MkdirAll(bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", bundle, "tmpfs", 0, "mode=700"); err != nil {
		t.Fatal(err)
	}
	storetest.WriteFile(bundle+"/id", tripwire)
	h.writeSecret("A", tripwire)
	signals := make(chan os.Signal)
	project := h.registerProject("A")
	r := h.runSidecar(func(c *Config) { c.Poll, c.PushNow = 10*time.Millisecond, signals })
	h.waitForNames("A", "aws")
	if err := unix.Unmount(bundle, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	r.waitForLog(h, "the directory of a bundle was replaced, and fields are missing; the broker keeps the old bundle")
	h.writeSecret("A", tripwire+"new") // the sidecar must push changes of other secrets
	h.waitForValues(project, map[schema.SecretName]string{"A": tripwire + "new"})
	h.waitForNames("A", "aws")
	h.waitUntil("the broker knows that the store has a problem", func() bool { return h.status().StoreProblems == 1 })
	if got := h.health(); got == "" {
		t.Error("CheckHealth found no problem")
	}
	signals <- syscall.SIGUSR1
	h.waitForNames("A")
	r.waitForLog(h, "the bundle has all fields again, or its missing fields were removed")

	storetest.WriteFile(bundle+"/id", tripwire)
	h.waitForNames("A", "aws")
	if err := unix.Mount("tmpfs", bundle, "tmpfs", 0, "mode=700"); err != nil {
		t.Fatal(err)
	}
	h.waitUntil("the broker knows about the new mount", func() bool { return h.status().StoreProblems == 1 })
	h.waitForNames("A", "aws")
}
