package audit

import (
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// TestFetchesAreMerged records many answers to two projects and two uids. The log must contain
// the event of the first answer to each project and uid soon after maxDelay, and then about one
// event per second for each project and uid. All events together must contain the counts of all
// answers.
func TestFetchesAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{room: 1 << 30}
		l, err := Open(Config{Out: disk, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		api, web := l.Project("api"), l.Project("web")
		callers := []struct {
			project *ProjectLog
			fetch   Fetch
		}{
			{api, Fetch{Caller: schema.EventCaller{PeerUID: 1000, PeerPID: 1}, Allowed: 1}},
			{api, Fetch{Caller: schema.EventCaller{PeerUID: 1001, PeerPID: 2}, Denied: 2}},
			{web, Fetch{Caller: schema.EventCaller{PeerUID: 1000, PeerPID: 3}, NotFound: 3}},
		}
		const rounds, interval = 1000, 10 * time.Millisecond // 10 s on the fake clock of synctest
		for round := range rounds {
			if time.Duration(round)*interval == 2*maxDelay {
				if n := disk.lines(); n != len(callers) {
					t.Errorf("the log has %d events soon after the first answers, want %d", n, len(callers))
				}
			}
			for _, c := range callers {
				f := c.fetch
				f.Caller.PeerPID += int32(round % 2)
				if !c.project.RecordFetch(f) {
					t.Fatal("RecordFetch returned false")
				}
			}
			time.Sleep(interval)
		}
		l.Close()
		events, sums := 0, schema.SecretsFetched{}
		for line := range strings.Lines(disk.text.String()) {
			var event schema.SecretsFetched
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				t.Fatal(err)
			}
			events++
			sums.Allowed += event.Allowed
			sums.Denied += event.Denied
			sums.NotFound += event.NotFound
		}
		if sums.Allowed != rounds || sums.Denied != 2*rounds || sums.NotFound != 3*rounds {
			t.Errorf("the counts of all events add up to %+v", sums)
		}
		if events < 3*10 || events > 3*12 {
			t.Errorf("%d events in 10 s, want about one event per second for each project and uid", events)
		}
	})
}

// TestMergersAreForgotten records answers, and then none for longer than mergeInterval. The log
// must no longer refer to the project.
func TestMergersAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(Config{Out: io.Discard, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for range 2 {
			api := l.Project("api")
			api.RecordFetch(Fetch{Allowed: 1})
			api.RecordFetch(Fetch{Allowed: 1})
			time.Sleep(3 * mergeInterval) // on the fake clock of synctest
			synctest.Wait()
			if n := len(l.active.mergers); n != 0 {
				t.Errorf("the log knows %d projects without requests, want 0", n)
			}
		}
	})
}
