package sidecar

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPollingUnderInotifyLimits runs a sidecar that cannot create an inotify instance or
// an inotify watch. It checks that the sidecar logs one warning and detects every change
// with polling. The test sets the inotify limits in a new user namespace, so the limits
// do not affect other processes.
func TestPollingUnderInotifyLimits(t *testing.T) {
	const limitEnv = "KEYHATCH_TEST_NO_INOTIFY"
	if limit := os.Getenv(limitEnv); limit != "" {
		if err := os.WriteFile("/proc/sys/user/"+limit, []byte("0"), 0); err != nil {
			t.Fatal("cannot set the inotify limit: ", err)
		}
		h := newTestHost(t)
		h.writeSecret("A", tripwire)
		r := h.runSidecar(func(c *Config) { c.Poll = 10 * time.Millisecond })
		h.waitForNames("A")
		h.writeSecret("B", tripwire)
		h.waitForNames("A", "B")
		if err := os.Remove(h.store + "/A"); err != nil {
			t.Fatal(err)
		}
		h.waitForNames("B")
		r.stop()
		if n := strings.Count(r.log.String(), "polling still detects changes"); n != 1 {
			t.Errorf("the sidecar logged the warning about inotify %d times, want 1", n)
		}
		return
	}
	for _, limit := range []string{"max_inotify_instances", "max_inotify_watches"} {
		t.Run(limit, func(t *testing.T) {
			t.Setenv(limitEnv, limit)
			runTestInNamespaces(t, "TestPollingUnderInotifyLimits", syscall.CLONE_NEWUSER)
		})
	}
}
