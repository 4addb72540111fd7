package audit

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

func recordPushes(l *Log, generations ...uint64) {
	for _, n := range generations {
		Record(l, schema.SecretsPushed{EventHeader: Header(schema.EventSecretsPushed), Generation: n})
	}
}

// expectGeneration reads the next event, which must already be written. It must be a push with
// the given generation, and the reader must have missed the given number of events before it.
func expectGeneration(t *testing.T, r *Reader, generation, missed uint64) {
	t.Helper()
	line, gotMissed, _ := r.Next()
	if !bytes.Contains(line, fmt.Appendf(nil, `"generation":%d}`, generation)) || gotMissed != missed {
		t.Errorf("got %s, %d missed; want generation %d, %d missed", line, gotMissed, generation, missed)
	}
}

// TestReaderFollowsEvents reads events that were recorded before and after Subscribe. The reader
// must return the recent events and then the new event, and its channel must be closed when there
// is a new event.
func TestReaderFollowsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		l, err := Open(Config{Out: &out, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		recordPushes(l, 1)
		time.Sleep(time.Second) // on the fake clock of synctest
		since := time.Now()
		time.Sleep(time.Second)
		recordPushes(l, 2)
		synctest.Wait()
		all, count := l.Subscribe(time.Time{})
		if count != 2 {
			t.Errorf("there are %d recent events, want 2", count)
		}
		expectGeneration(t, all, 1, 0)
		expectGeneration(t, all, 2, 0)
		recent, count := l.Subscribe(since)
		if count != 1 {
			t.Errorf("there are %d recent events after the first one, want 1", count)
		}
		expectGeneration(t, recent, 2, 0)

		line, _, changed := recent.Next()
		if line != nil {
			t.Errorf("there was no new event, but Next returned %s", line)
		}
		go recordPushes(l, 3)
		<-changed
		expectGeneration(t, recent, 3, 0)
		l.Close()
		expectGeneration(t, all, 3, 0)
		if strings.Count(out.String(), "\n") != 3 {
			t.Errorf("the log does not have three lines:\n%s", out.String())
		}
	})
}

// TestReaderContinuesAfterLastEvent subscribes with the time that the last event contains, as a
// client does after an interruption. The reader must return only later events.
func TestReaderContinuesAfterLastEvent(t *testing.T) {
	l, err := Open(Config{Out: io.Discard, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	first, second := Header(schema.EventSecretsPushed), Header(schema.EventSecretsPushed)
	Record(l, schema.SecretsPushed{EventHeader: first, Generation: 1})
	Record(l, schema.SecretsPushed{EventHeader: second, Generation: 2})
	l.Close()
	r, recent := l.Subscribe(first.Time)
	if recent != 1 {
		t.Errorf("there are %d recent events, want 1", recent)
	}
	expectGeneration(t, r, 2, 0)
	if _, recent := l.Subscribe(second.Time); recent != 0 {
		t.Errorf("there are %d events after the last one, want 0", recent)
	}
}

// TestReaderReportsMissedEvents records more events than the ring can contain, and reads only
// afterwards. The reader must skip the events that are no longer in the ring, and report their
// number.
func TestReaderReportsMissedEvents(t *testing.T) {
	l, err := Open(Config{Out: io.Discard, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r, _ := l.Subscribe(time.Time{})
	for n := range uint64(ringSize + 10) {
		recordPushes(l, n)
	}
	l.Close()
	expectGeneration(t, r, 10, 10)
	expectGeneration(t, r, 11, 0)
}

// TestStreamContainsOnlyWrittenEvents records events while the disk is full. A reader must not
// get these events, but it must get their number when the disk has room again.
func TestStreamContainsOnlyWrittenEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{}
		l, err := Open(Config{Out: disk, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		r, _ := l.Subscribe(time.Time{})
		recordPushes(l, 1, 2)
		synctest.Wait()
		if line, _, _ := r.Next(); line != nil {
			t.Errorf("the reader got an event that is not in the log: %s", line)
		}
		disk.mu.Lock()
		disk.room = 1 << 20
		disk.mu.Unlock()
		recordPushes(l, 3)
		synctest.Wait()
		if line, _, _ := r.Next(); !bytes.Contains(line, []byte(`"audit.dropped","count":2}`)) {
			t.Errorf("after two dropped events, the reader got %s", line)
		}
		expectGeneration(t, r, 3, 0)
	})
}

// TestReaderContinuesInOrderOfLog adds events whose times are not in order. Two clients at the same
// time can cause this order. A reader that continues after an event must get all events that were
// added after this event, even if their times are earlier.
func TestReaderContinuesInOrderOfLog(t *testing.T) {
	var r ring
	at := func(second int64) time.Time { return time.Unix(second, 0) }
	for _, second := range []int64{10, 30, 20, 50, 40} {
		r.add([]entry{{time: at(second)}})
	}
	for _, c := range []struct {
		since  int64
		recent int
	}{{10, 4}, {30, 3}, {20, 2}, {50, 1}, {40, 0}, {9, 5}, {25, 4}, {51, 0}} {
		reader, recent := r.newReader(at(c.since))
		if recent != c.recent || reader.Number() != uint64(6-c.recent) {
			t.Errorf("after the time %d, there are %d events, and the first has number %d; want %d events", c.since, recent, reader.Number(), c.recent)
		}
	}
}
