package audit

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// TestBufferDelaysFetches records the events of answers and checks when the log writes them. The
// log must write a single event after maxDelay. It must write events at once if the buffer is
// half full, or if an urgent event follows.
func TestBufferDelaysFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &fakeDisk{room: 1 << 30}
		l, err := Open(Config{Out: disk, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		want := 0
		expect := func(when string) {
			t.Helper()
			synctest.Wait()
			if n := disk.lines(); n != want {
				t.Errorf("%s, the log has %d events, want %d", when, n, want)
			}
		}
		l.Project("a").RecordFetch(Fetch{})
		time.Sleep(maxDelay - 1) // on the fake clock of synctest
		expect("before the delay is over")
		time.Sleep(time.Nanosecond)
		want++
		expect("after the delay")
		for i := range bufferSize/2 - 1 {
			l.Project(schema.ProjectName(fmt.Sprint("b", i))).RecordFetch(Fetch{})
		}
		expect("before the buffer is half full")
		l.Project("c").RecordFetch(Fetch{})
		want += bufferSize / 2
		expect("after the buffer is half full")
		l.Project("d").RecordFetch(Fetch{})
		Record(l, schema.BrokerStopped{EventHeader: Header(schema.EventBrokerStopped)})
		want += 2
		expect("after an urgent event")
	})
}

// TestNoEventIsLost records answers of several projects concurrently, and closes the log.
// The counts in the events must include all answers.
func TestNoEventIsLost(t *testing.T) {
	disk := &fakeDisk{room: 1 << 30}
	l, err := Open(Config{Out: disk, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	const projects, answers = 8, 2000
	var recording sync.WaitGroup
	for i := range projects {
		project := l.Project(schema.ProjectName(fmt.Sprint("p", i)))
		for uid := range uint32(2) {
			recording.Go(func() {
				for range answers {
					project.RecordFetch(Fetch{Caller: schema.EventCaller{PeerUID: uid}, Allowed: 1})
				}
			})
		}
	}
	recording.Wait()
	l.Close()
	sum := 0
	for line := range strings.Lines(disk.text.String()) {
		var event schema.SecretsFetched
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		sum += event.Allowed
	}
	if sum != 2*projects*answers || l.Dropped() != 0 {
		t.Errorf("the events contain %d answers, want %d; %d events were dropped", sum, 2*projects*answers, l.Dropped())
	}
}
