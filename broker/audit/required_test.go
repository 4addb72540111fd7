package audit

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/keyhatch/keyhatch/schema"
)

// TestRequiredFetchWaitsForWrite checks RecordFetch in a log that requires audit.
// RecordFetch must return true only after its event was written. It must return false if
// the disk is full or a write blocks.
func TestRequiredFetchWaitsForWrite(t *testing.T) {
	fetched := Fetch{Project: "api", Allowed: 1}
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{room: 1 << 20}
		a, err := Open(Config{Out: disk, Required: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if !a.RecordFetch(fetched) || !strings.Contains(disk.text.String(), "secrets.fetched") {
			t.Errorf("RecordFetch did not write its event: the disk contains only %s", disk.text.String())
		}
		disk.mu.Lock()
		disk.room = 0
		disk.mu.Unlock()
		if a.RecordFetch(fetched) {
			t.Error("RecordFetch succeeded with a full disk")
		}
		// Record must not wait for the full disk.
		Record(a, schema.BrokerStopped{EventHeader: Header(schema.EventBrokerStopped)})
		synctest.Wait()
		disk.mu.Lock()
		disk.room = 1 << 20
		disk.mu.Unlock()
		if !a.RecordFetch(fetched) {
			t.Error("RecordFetch failed although the disk has room again")
		}
		if n := a.Dropped(); n != 2 {
			t.Errorf("%d events were counted as dropped, want 2", n)
		}
		a.Close()
		if !strings.Contains(disk.text.String(), `"audit.dropped","count":2`) {
			t.Errorf("the log does not report the dropped events: %s", disk.text.String())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{room: 1 << 20, writes: make(chan struct{})}
		a, err := Open(Config{Out: disk, Required: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		first := make(chan bool)
		go func() { first <- a.RecordFetch(fetched) }() // blocks in the Write of the fake disk
		synctest.Wait()
		if a.RecordFetch(fetched) || <-first {
			t.Error("RecordFetch succeeded with a blocked disk")
		}
		go func() {
			for range disk.writes {
			}
		}()
		a.Close()
		if n := bytes.Count(disk.text.Bytes(), []byte("secrets.fetched")); n != 1 {
			t.Errorf("%d events were written, want 1, because the second RecordFetch timed out before its event was written", n)
		}
		close(disk.writes)
	})
}
