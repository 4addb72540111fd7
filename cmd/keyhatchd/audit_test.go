package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestAuditRotation renames the audit log away: the next event makes a new one.
func TestAuditRotation(t *testing.T) {
	d := start(t, "keyhatchd", dirFor(t))
	register(t, d)
	if !eventually(5*time.Second, func() bool { return strings.Contains(readFile(d.audit), "project.registered") }) {
		t.Fatal("the event was not written")
	}
	if err := os.Rename(d.audit, d.audit+".1"); err != nil {
		t.Fatal(err)
	}
	ask(t, d.project("api"), `{"op":"get","name":"A"}`)
	if !eventually(5*time.Second, func() bool { return strings.Contains(readFile(d.audit), `"event":"secrets.fetched"`) }) {
		t.Error("the event after the rotation is not in a new file")
	}
}
