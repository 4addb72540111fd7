package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// A fakeDisk takes room bytes and then is full. Where writes is not nil each write
// hangs until it is read.
type fakeDisk struct {
	mu     sync.Mutex
	text   bytes.Buffer
	room   int
	writes chan struct{}
}

func (disk *fakeDisk) Write(p []byte) (int, error) {
	disk.mu.Lock()
	defer disk.mu.Unlock()
	if disk.writes != nil {
		disk.writes <- struct{}{}
	}
	n := min(len(p), disk.room)
	disk.room -= n
	disk.text.Write(p[:n])
	if n < len(p) {
		return n, errors.New("no space left on device")
	}
	return n, nil
}

// TestDroppedEventsAreCounted fills the disk within a line, and makes room: what was lost
// is counted, the torn line is ended, and every other line is whole.
func TestDroppedEventsAreCounted(t *testing.T) {
	disk := &fakeDisk{room: 100}
	var log bytes.Buffer
	a, err := Open(Config{Out: disk, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for range 4 { // of some 80 bytes each
		Record(a, schema.BrokerStarted{EventHeader: Header(schema.EventBrokerStarted), ProtocolVersion: 2})
	}
	for a.unreported.Load() < 3 {
		runtime.Gosched()
	}
	disk.mu.Lock()
	disk.room = 1 << 20
	disk.mu.Unlock()
	Record(a, schema.BrokerStopped{EventHeader: Header(schema.EventBrokerStopped)})
	a.Close()

	var events []string
	var dropped uint64
	torn := 0
	for line := range strings.Lines(disk.text.String()) {
		var event struct {
			Event string
			Count uint64
		}
		if json.Unmarshal([]byte(line), &event) != nil {
			torn++
			continue
		}
		events = append(events, event.Event)
		dropped += event.Count
	}
	if got := strings.Join(events, " "); got != "broker.started audit.dropped broker.stopped" || torn != 1 || dropped != 3 {
		t.Errorf("events %s, %d torn lines, %d dropped:\n%s", got, torn, dropped, disk.text.String())
	}
	if n := strings.Count(log.String(), "cannot write audit events"); n != 1 {
		t.Errorf("it was logged %d times:\n%s", n, log.String())
	}
}

// TestRecordDoesNotBlock records more than the queue holds while the disk hangs.
func TestRecordDoesNotBlock(t *testing.T) {
	disk := &fakeDisk{room: 1 << 30, writes: make(chan struct{})}
	var log bytes.Buffer
	a, err := Open(Config{Out: disk, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for range queueSize + 100 {
		Record(a, schema.BrokerStopped{EventHeader: Header(schema.EventBrokerStopped)})
	}
	go func() {
		for range disk.writes {
		}
	}()
	a.Close()
	disk.mu.Lock()
	defer disk.mu.Unlock()
	written, dropped := 0, 0
	for line := range strings.Lines(disk.text.String()) {
		var event schema.AuditDropped
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		if event.Event == schema.EventAuditDropped {
			dropped += int(event.Count)
		} else {
			written++
		}
	}
	if written < queueSize || dropped == 0 || written+dropped != queueSize+100 {
		t.Errorf("%d events were written and %d counted as dropped, of %d", written, dropped, queueSize+100)
	}
}
