package sidecar

import (
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

// TestTakeoverIsReported stops the first of two sidecars. If the second sidecar has secrets with other
// names, it must log a warning with the numbers of secrets, because secrets can be missing now.
func TestTakeoverIsReported(t *testing.T) {
	for name, names := range map[string][]string{"the same names": {"A", "B", "C"}, "other names": {"A", "NEW"}} {
		t.Run(name, func(t *testing.T) {
			h := newTestHost(t)
			for _, name := range []string{"A", "B", "C"} {
				h.writeSecret(name, tripwire)
			}
			first := h.runSidecar(nil)
			h.waitForNames("A", "B", "C")
			other := store.Dir{Path: h.dir + "/other"}
			for _, name := range names {
				storetest.WriteFile(other.Path+"/"+name, tripwire+"other")
			}
			second := h.runSidecar(func(c *Config) { c.Poll, c.Store = 5*time.Millisecond, other })
			second.waitForLog(h, "the broker refuses this sidecar")
			first.stop()
			second.waitForLog(h, "pushed the secrets to the broker")
			want := 0
			if len(names) == 2 {
				want = 1
			}
			const text = `level=WARN msg="another sidecar has stopped, and this sidecar has replaced its secrets by a different set" secrets_before=3 secrets_after=2 removed=2 added=1`
			if n := strings.Count(second.log.String(), text); n != want {
				t.Errorf("the second sidecar logged the takeover %d times, want %d:\n%s", n, want, second.log)
			}
			if n := strings.Count(second.log.String(), "level=WARN"); n != want {
				t.Errorf("the second sidecar logged %d warnings, want %d:\n%s", n, want, second.log)
			}
		})
	}
}
