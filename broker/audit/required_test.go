package audit

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/keyhatch/keyhatch/schema"
)

// TestRequiredFetchWaitsForWrite: where audit is required, an answer is given when its
// event is on the fakeDisk, and is not when the fakeDisk is full or hangs.
func TestRequiredFetchWaitsForWrite(t *testing.T) {
	fetched := Fetch{Project: "api", Allowed: 1}
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{room: 1 << 20}
		a, err := Open(Config{Out: disk, Required: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if !a.RecordFetch(fetched) || !strings.Contains(disk.text.String(), "secrets.fetched") {
			t.Errorf("the answer may be given: %s", disk.text.String())
		}
		disk.mu.Lock()
		disk.room = 0
		disk.mu.Unlock()
		if a.RecordFetch(fetched) {
			t.Error("an answer is given that a full fakeDisk did not take")
		}
		Record(a, schema.BrokerStopped{EventHeader: Header(schema.EventBrokerStopped)}) // never waits
		synctest.Wait()
		disk.mu.Lock()
		disk.room = 1 << 20
		disk.mu.Unlock()
		if !a.RecordFetch(fetched) {
			t.Error("no answer is given, and the fakeDisk has room again")
		}
		if n := a.Dropped(); n != 2 {
			t.Errorf("%d events are counted as dropped", n)
		}
		a.Close()
		if !strings.Contains(disk.text.String(), `"audit.dropped","count":2`) {
			t.Errorf("what was dropped is not reported: %s", disk.text.String())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{room: 1 << 20, writes: make(chan struct{})}
		a, err := Open(Config{Out: disk, Required: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		first := make(chan bool)
		go func() { first <- a.RecordFetch(fetched) }() // hangs in the write
		synctest.Wait()
		if a.RecordFetch(fetched) || <-first {
			t.Error("an answer is given that a fakeDisk that hangs did not take")
		}
		go func() {
			for range disk.writes {
			}
		}()
		a.Close()
		if n := bytes.Count(disk.text.Bytes(), []byte("secrets.fetched")); n != 1 {
			t.Errorf("%d events are written; the second was given up before its turn", n)
		}
		close(disk.writes)
	})
}
