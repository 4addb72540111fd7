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

// expectGeneration reads the next event, which must be a push with this generation.
func expectGeneration(t *testing.T, r *Reader, generation, missed uint64) {
	t.Helper()
	line, gotMissed, err := r.Next(t.Context())
	if err != nil || !bytes.Contains(line, fmt.Appendf(nil, `"generation":%d}`, generation)) || gotMissed != missed {
		t.Errorf("got %s, %d missed, %v; want generation %d, %d missed", line, gotMissed, err, generation, missed)
	}
}

// TestReaderFollowsEvents reads recent events and later events, until the log is
// closed.
func TestReaderFollowsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		l, err := Open(Config{Out: &out, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		recordPushes(l, 1)
		time.Sleep(time.Second) // in the fake time of synctest
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
			t.Errorf("without an event, Next returned %v", err)
		}
		go recordPushes(l, 3)
		expectGeneration(t, recent, 3, 0) // waits for the event
		l.Close()
		expectGeneration(t, all, 3, 0)
		if _, _, err := all.Next(t.Context()); err != io.EOF {
			t.Errorf("after Close, Next returned %v", err)
		}
		if strings.Count(out.String(), "\n") != 3 {
			t.Errorf("the log must have three lines, and is\n%s", out.String())
		}
	})
}

// TestReaderReportsMissedEvents reads after more events than the ring can hold.
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
