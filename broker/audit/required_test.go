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
	fetched := Fetch{Allowed: 1}
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{room: 1 << 20}
		a, err := Open(Config{Out: disk, Required: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		api := a.Project("api")
		if !api.RecordFetch(fetched) || !strings.Contains(disk.text.String(), "secrets.fetched") {
			t.Errorf("RecordFetch did not write its event: the disk contains only %s", disk.text.String())
		}
		disk.mu.Lock()
		disk.room = 0
		disk.mu.Unlock()
		if api.RecordFetch(fetched) {
			t.Error("RecordFetch succeeded with a full disk")
		}
		// Record must not wait for the full disk.
		Record(a, schema.BrokerStopped{EventHeader: Header(schema.EventBrokerStopped)})
		synctest.Wait()
		disk.mu.Lock()
		disk.room = 1 << 20
		disk.mu.Unlock()
		if !api.RecordFetch(fetched) {
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
		api := a.Project("api")
		first := make(chan bool)
		go func() { first <- api.RecordFetch(fetched) }() // blocks in the Write of the fake disk
		synctest.Wait()
		if api.RecordFetch(fetched) || <-first {
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

// TestRequiredFetchesAreWrittenTogether records many answers while a write blocks. The log
// must write all their events with the next write, and RecordFetch must return true for each.
func TestRequiredFetchesAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{room: 1 << 20, writes: make(chan struct{})}
		a, err := Open(Config{Out: disk, Required: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		const answers = 100
		results := make(chan bool)
		api := a.Project("api")
		record := func() { results <- api.RecordFetch(Fetch{Allowed: 1}) }
		go record()
		synctest.Wait() // now the write of the first event blocks
		for range answers {
			go record()
		}
		synctest.Wait()
		for range 2 { // let the log write the first event, and then all other events
			<-disk.writes
			synctest.Wait()
		}
		for range answers + 1 {
			if !<-results {
				t.Error("RecordFetch returned false")
			}
		}
		a.Close()
		if n := bytes.Count(disk.text.Bytes(), []byte("secrets.fetched")); n != answers+1 || a.Dropped() != 0 {
			t.Errorf("%d events were written and %d were dropped, want %d and 0", n, a.Dropped(), answers+1)
		}
	})
}

// TestGivenUpEventsAreNotWritten lets a write fail, and then writes a batch whose only event was
// given up. The writer must not report that writing works again.
func TestGivenUpEventsAreNotWritten(t *testing.T) {
	disk := &fakeDisk{}
	w := writer{buffer: newBuffer(), output: output{out: disk}, recent: &ring{}, log: slog.New(slog.DiscardHandler)}
	w.writeBatch(batch{items: []item{{project: "api"}}})
	w.writeBatch(batch{items: []item{{project: "api", givenUp: true}}})
	if !w.failing || w.buffer.dropped.Load() != 1 || disk.text.Len() != 0 {
		t.Errorf("failing is %v, %d events were counted as dropped, the log is %q", w.failing, w.buffer.dropped.Load(), disk.text.String())
	}
}

// TestPartOfBatchIsWritten writes a batch of four events to a disk with space for two of them.
// The second event is given up, so the writer must write the first and the third event, and count
// the fourth event as dropped.
func TestPartOfBatchIsWritten(t *testing.T) {
	disk := &fakeDisk{}
	w := writer{buffer: newBuffer(), output: output{out: disk}, recent: &ring{}, log: slog.New(slog.DiscardHandler)}
	events := batch{result: &result{done: make(chan struct{})}}
	for uid := range uint32(4) {
		events.items = append(events.items, item{
			project: "api", fetch: Fetch{Caller: schema.EventCaller{PeerUID: uid}, Allowed: 1}, givenUp: uid == 1,
		})
	}
	line, err := events.items[0].encode()
	if err != nil {
		t.Fatal(err)
	}
	disk.room = 2*len(line) + 5
	w.writeBatch(events)
	<-events.result.done
	if events.result.written != 3 || w.buffer.dropped.Load() != 1 {
		t.Errorf("written is %d, want 3; %d events were counted as dropped, want 1", events.result.written, w.buffer.dropped.Load())
	}
	disk.room = 1 << 20
	w.reportDropped()
	var uids []string
	for line := range strings.Lines(disk.text.String()) {
		if _, rest, ok := strings.Cut(line, `"peer_uid":`); ok {
			uids = append(uids, rest[:1])
		}
	}
	if strings.Join(uids, " ") != "0 2" || !strings.HasSuffix(disk.text.String(), `"audit.dropped","count":1}`+"\n") {
		t.Errorf("the log contains the events of the uids %v:\n%s", uids, disk.text.String())
	}
}
