package audit

import (
	"bytes"
	"context"
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

// expectGeneration reads the next event. It must be a push with the given generation, and
// the reader must have missed the given number of events before it.
func expectGeneration(t *testing.T, r *Reader, generation, missed uint64) {
	t.Helper()
	line, gotMissed, err := r.Next(t.Context())
	if err != nil || !bytes.Contains(line, fmt.Appendf(nil, `"generation":%d}`, generation)) || gotMissed != missed {
		t.Errorf("got %s, %d missed, %v; want generation %d, %d missed", line, gotMissed, err, generation, missed)
	}
}

// TestReaderFollowsEvents checks that a reader returns recent events, then new events,
// and then io.EOF after the log was closed.
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
		all, recent := l.Subscribe(time.Time{}), l.Subscribe(since)
		expectGeneration(t, all, 1, 0)
		expectGeneration(t, all, 2, 0)
		expectGeneration(t, recent, 2, 0)

		ended, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := recent.Next(ended); err != context.DeadlineExceeded {
			t.Errorf("there was no new event, but Next returned %v instead of the error of its context", err)
		}
		go recordPushes(l, 3)
		expectGeneration(t, recent, 3, 0) // Next waits until the event is recorded
		l.Close()
		expectGeneration(t, all, 3, 0)
		if _, _, err := all.Next(t.Context()); err != io.EOF {
			t.Errorf("after the last event of a closed log, Next returned %v, want io.EOF", err)
		}
		if strings.Count(out.String(), "\n") != 3 {
			t.Errorf("the log does not have three lines:\n%s", out.String())
		}
	})
}

// TestReaderReportsMissedEvents writes more events than the ring can contain before it
// reads. The reader must skip the lost events and report their number.
func TestReaderReportsMissedEvents(t *testing.T) {
	l, err := Open(Config{Out: io.Discard, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r := l.Subscribe(time.Time{})
	for n := range uint64(ringSize + 10) {
		recordPushes(l, n)
	}
	l.Close()
	expectGeneration(t, r, 10, 10)
	expectGeneration(t, r, 11, 0)
}
