package audit

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// TestFetchesAreMerged records many answers to two projects and two uids. The log must
// contain the first answer to each project and uid at once, and then at most one event
// per second for each project and uid. All events together must contain the counts of all
// answers.
func TestFetchesAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		l, err := Open(Config{Out: &out, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		callers := []Fetch{
			{Project: "api", Caller: schema.EventCaller{PeerUID: 1000, PeerPID: 1}, Allowed: 1},
			{Project: "api", Caller: schema.EventCaller{PeerUID: 1001, PeerPID: 2}, Denied: 2},
			{Project: "web", Caller: schema.EventCaller{PeerUID: 1000, PeerPID: 3}, NotFound: 3},
		}
		const rounds, interval = 1000, 10 * time.Millisecond // 10 s on the fake clock of synctest
		for round := range rounds {
			for _, f := range callers {
				f.Caller.PeerPID += int32(round % 2)
				if !l.RecordFetch(f) {
					t.Fatal("RecordFetch returned false")
				}
			}
			if round == 0 {
				synctest.Wait()
				if n := strings.Count(out.String(), "\n"); n != len(callers) {
					t.Errorf("the log has %d events after the first round of answers, want %d", n, len(callers))
				}
			}
			time.Sleep(interval)
		}
		l.Close()
		events, sums := 0, schema.SecretsFetched{}
		for line := range strings.Lines(out.String()) {
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
