package sidecar

import (
	"strings"
	"testing"
	"time"
)

// TestBackupInStoreIsReportedOnce checks that the sidecar pushes a file that looks like a backup, and that it
// logs a warning once.
func TestBackupInStoreIsReportedOnce(t *testing.T) {
	const warning = "looks like a backup"
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	h.writeSecret("A.bak", tripwire)
	r := h.runSidecar(func(c *Config) { c.Poll = 10 * time.Millisecond })
	h.waitForNames("A", "A.bak")
	h.writeSecret("B.orig", tripwire)
	h.waitForNames("A", "A.bak", "B.orig")
	r.waitForLog(h, h.store+"/B.orig")
	h.writeSecret("C", tripwire)
	h.waitForNames("A", "A.bak", "B.orig", "C")
	if n := strings.Count(r.log.String(), warning); n != 2 {
		t.Errorf("the sidecar logged %d warnings, want 2:\n%s", n, r.log)
	}
}
