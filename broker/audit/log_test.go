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

// A fakeDisk is an output with space for room bytes. When the space is used up, Write fails as on a
// full disk. If writes is not nil, each Write sends a value on writes, and blocks until the test
// receives this value.
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

// lines returns the number of lines on the disk.
func (disk *fakeDisk) lines() int {
	disk.mu.Lock()
	defer disk.mu.Unlock()
	return bytes.Count(disk.text.Bytes(), []byte("\n"))
}

// TestDroppedEventsAreCounted fills the fake disk in the middle of a line, and then frees space.
// The log must report the number of dropped events. The incomplete line must end with a newline,
// and all other lines must be complete.
func TestDroppedEventsAreCounted(t *testing.T) {
	disk := &fakeDisk{room: 100}
	var log bytes.Buffer
	a, err := Open(Config{Out: disk, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for range 4 { // each event has about 80 bytes, so only the first one fits
		Record(a, schema.BrokerStarted{EventHeader: Header(schema.EventBrokerStarted), ProtocolVersion: 2})
	}
	for a.buffer.unreported.Load() < 3 {
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
		t.Errorf("got the events %s, %d incomplete lines, and %d dropped events:\n%s", got, torn, dropped, disk.text.String())
	}
	if n := strings.Count(log.String(), "cannot write audit events"); n != 1 {
		t.Errorf("the error was logged %d times, want 1:\n%s", n, log.String())
	}
}

// TestRecordDoesNotBlock records more events than the buffer and one batch of the writer can
// contain, while every write to the fake disk blocks. Record must return without waiting for the
// disk, and the log must write or count each event.
func TestRecordDoesNotBlock(t *testing.T) {
	disk := &fakeDisk{room: 1 << 30, writes: make(chan struct{})}
	var log bytes.Buffer
	a, err := Open(Config{Out: disk, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	const recorded = 2*bufferSize + 100
	for range recorded {
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
	if written < bufferSize || dropped == 0 || written+dropped != recorded {
		t.Errorf("%d events were written and %d events were counted as dropped, want a sum of %d", written, dropped, recorded)
	}
}
