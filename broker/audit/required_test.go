package audit

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/keyhatch/keyhatch/schema"
)

// TestAnswersAreRecorded: where audit is required, an answer is given when its
// event is on the disk, and is not when the disk is full or hangs.
func TestAnswersAreRecorded(t *testing.T) {
	fetched := Fetch{Project: "api", Allowed: 1}
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: 1 << 20}
		a, err := Open(Config{Out: d, Required: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if !a.RecordFetch(fetched) || !strings.Contains(d.text.String(), "secrets.fetched") {
			t.Errorf("the answer may be given: %s", d.text.String())
		}
		d.mu.Lock()
		d.room = 0
		d.mu.Unlock()
		if a.RecordFetch(fetched) {
			t.Error("an answer is given that a full disk did not take")
		}
		Record(a, schema.BrokerStopped{EventHeader: Header(schema.EventStopped)}) // never waits
		synctest.Wait()
		d.mu.Lock()
		d.room = 1 << 20
		d.mu.Unlock()
		if !a.RecordFetch(fetched) {
			t.Error("no answer is given, and the disk has room again")
		}
		if n := a.Dropped(); n != 2 {
			t.Errorf("%d events are counted as dropped", n)
		}
		a.Close()
		if !strings.Contains(d.text.String(), `"audit.dropped","count":2`) {
			t.Errorf("what was dropped is not reported: %s", d.text.String())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: 1 << 20, wrote: make(chan struct{})}
		a, err := Open(Config{Out: d, Required: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		first := make(chan bool)
		go func() { first <- a.RecordFetch(fetched) }() // hangs in the write
		synctest.Wait()
		if a.RecordFetch(fetched) || <-first {
			t.Error("an answer is given that a disk that hangs did not take")
		}
		go func() {
			for range d.wrote {
			}
		}()
		a.Close()
		if n := bytes.Count(d.text.Bytes(), []byte("secrets.fetched")); n != 1 {
			t.Errorf("%d events are written; the second was given up before its turn", n)
		}
		close(d.wrote)
	})
}
