package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestAuditLogReopensAfterRename renames the audit log. The daemon must write the next event
// to a new file.
func TestAuditLogReopensAfterRename(t *testing.T) {
	d := startDaemon(t, "keyhatchd", newRuntimeDir(t))
	registerProject(t, d)
	if !eventually(5*time.Second, func() bool { return strings.Contains(readFile(d.audit), "project.registered") }) {
		t.Fatal("the daemon did not write the event project.registered")
	}
	if err := os.Rename(d.audit, d.audit+".1"); err != nil {
		t.Fatal(err)
	}
	sendRequest(t, d.projectSocket("api"), `{"op":"get","name":"A"}`)
	if !eventually(5*time.Second, func() bool { return strings.Contains(readFile(d.audit), `"event":"secrets.fetched"`) }) {
		t.Error("after the audit log was renamed, the daemon did not write the next event to a new file")
	}
}
