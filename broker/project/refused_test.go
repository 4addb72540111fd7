package project

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/keyring"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// TestRefusedCallersCannotFillAuditLog refuses 1000 callers within 10 seconds. The audit log must
// contain an event for each of the first callers, and then at most one event per second.
func TestRefusedCallersCannotFillAuditLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events bytes.Buffer
		log, err := audit.Open(audit.Config{Out: &events, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		p := New(Config{Name: "api", Audit: log, View: keyring.New().View(), Manifest: &manifest.Manifest{}})
		const callers = 1000
		for i := range callers {
			if i%100 == 0 {
				time.Sleep(time.Second) // on the fake clock of synctest
			}
			if _, refused := p.refuseCaller(endpoint.Caller{UID: 4321, PID: 1}); !refused {
				t.Fatal("a caller whose uid is not allowed was not refused")
			}
		}
		log.Close()
		if n := strings.Count(events.String(), `"peer.refused"`); n < schema.PeerRefusedBurst+8 || n > schema.PeerRefusedBurst+11 {
			t.Errorf("the log has %d events for %d refused callers in 10 s", n, callers)
		}
	})
}
