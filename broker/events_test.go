package broker_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// An eventLine contains the fields of the audit events that the tests use.
type eventLine struct {
	schema.EventHeader
	Count       uint64 `json:"count"`
	SecretCount int    `json:"secret_count"`
	Generation  uint64 `json:"generation"`
}

// subscribe starts an event stream. It returns the connection, and the number of recent events.
func (s *testServer) subscribe(t *testing.T, request string) (*rawConn, int) {
	t.Helper()
	c := connect(t, s.adminSocket)
	var response schema.EventsResponse
	if err := json.Unmarshal([]byte(c.request(t, request)), &response); err != nil || !response.OK {
		t.Fatalf("the broker refused %s", request)
	}
	return c, response.Recent
}

func (c *rawConn) readEventLine(t *testing.T) (event eventLine) {
	t.Helper()
	line := c.readLine(t)
	if err := json.Unmarshal([]byte(line), &event); err != nil {
		t.Fatalf("the event stream contains %q: %v", line, err)
	}
	return event
}

// listSecrets sends a number of list-creds requests. Each of them is recorded.
func (s *testServer) listSecrets(t *testing.T, times int) {
	t.Helper()
	admin := connect(t, s.adminSocket)
	for range times {
		if answer := admin.request(t, `{"op":"list-creds"}`); !strings.HasPrefix(answer, `{"ok":true`) {
			t.Fatal(answer)
		}
	}
}

// TestSlowEventReaderMissesEvents starts an event stream and does not read it while the broker
// records more events than it keeps in memory. The broker must keep the connection open. The
// reader must then get one line with the number of events that it missed, and all other events.
func TestSlowEventReaderMissesEvents(t *testing.T) {
	s := newServer(t)
	started, _ := s.subscribe(t, `{"op":"events"}`)
	started.readEventLine(t) // broker.started, which the broker may write only after its start
	slow, recent := s.subscribe(t, `{"op":"events"}`)
	const events = 3000
	s.listSecrets(t, events)
	s.push(t, map[schema.SecretName]schema.Value{"A": {Text: tripwire}})
	read, missed, reports, early := 0, 0, 0, 0
	for {
		event := slow.readEventLine(t)
		if event.Event == schema.EventSecretsPushed {
			break
		}
		if event.Event == schema.EventEventsMissed {
			missed += int(event.Count)
			early = read
			reports++
			continue
		}
		read++
	}
	if read+missed != recent+events {
		t.Errorf("the reader got %d events and missed %d, want %d in all", read, missed, recent+events)
	}
	// Each event needs at least 512 bytes in the kernel. The broker may send events only until the
	// client has 8 KiB of unread events. Otherwise the next write could wait for the client.
	if early > 16 {
		t.Errorf("the broker sent %d events to a client that did not read, want at most 16", early)
	}
	if reports != 1 || missed < events/2 {
		t.Errorf("the reader got %d lines about %d missed events, want one line about most of the events", reports, missed)
	}
}

// TestEventStreamBeginsWithRecentEvents starts an event stream without the field since, and another
// one with since. The first stream must begin with the events that the broker keeps in memory. The
// other stream must contain only the events after since.
func TestEventStreamBeginsWithRecentEvents(t *testing.T) {
	s := newServer(t)
	s.listSecrets(t, 2)
	all, recent := s.subscribe(t, `{"op":"events"}`)
	var last eventLine
	for count := 0; count < 3; count++ { // broker.started and two secrets.listed
		last = all.readEventLine(t)
	}
	if recent > 3 || last.Event != schema.EventSecretsListed {
		t.Errorf("the response promised %d events, and the third event is %s", recent, last.Event)
	}
	since, recent := s.subscribe(t, `{"op":"events","since":"`+last.Time.Format(time.RFC3339Nano)+`"}`)
	if recent != 0 {
		t.Errorf("there are %d events after the last one, want 0", recent)
	}
	s.push(t, map[schema.SecretName]schema.Value{"A": {Text: tripwire}})
	for _, c := range []*rawConn{all, since} {
		if event := c.readEventLine(t); event.Event != schema.EventSecretsPushed || event.Generation != 1 {
			t.Errorf("after a push, the stream contains %+v", event)
		}
	}
}

// TestEventsAreNumbered starts an event stream after the broker has overwritten events in its
// memory. The number of the first event must show how many events are missing.
func TestEventsAreNumbered(t *testing.T) {
	s := newServer(t)
	first := func(request string) uint64 {
		var response schema.EventsResponse
		if err := json.Unmarshal([]byte(connect(t, s.adminSocket).request(t, request)), &response); err != nil {
			t.Fatal(err)
		}
		return response.First
	}
	if n := first(`{"op":"events"}`); n != 1 {
		t.Errorf("the number of the first event is %d, want 1", n)
	}
	const events = 2000
	s.listSecrets(t, events)
	waitUntil(t, func() bool { return first(`{"op":"events","since":"2999-01-01T00:00:00Z"}`) == events+2 }) // also broker.started
	if n := first(`{"op":"events"}`); n != events+2-1024 {
		t.Errorf("the number of the oldest event in memory is %d, want %d", n, events+2-1024)
	}
}

// TestEventStreamEndsWithBroker stops the broker while it has two event streams. The client of one
// of them does not read. Both connections must end, and must not delay the stop.
func TestEventStreamEndsWithBroker(t *testing.T) {
	s := newServer(t)
	stream, _ := s.subscribe(t, `{"op":"events"}`)
	slow, _ := s.subscribe(t, `{"op":"events"}`)
	s.listSecrets(t, 200)
	for range 201 { // also broker.started
		stream.readEventLine(t)
	}
	s.Shutdown(t.Context())
	if line := stream.readLine(t); line != "" {
		t.Errorf("after the stop, the stream contains %s", line)
	}
	for slow.readLine(t) != "" {
	}
	if text := s.log.String(); strings.Contains(text, "did not end") {
		t.Errorf("the streams did not end when the broker stopped:\n%s", text)
	}
}

// TestEventReadersAreCounted starts two event streams and ends one. The status must contain the
// number of open event streams, so that a command can distinguish these connections from the
// connections of sidecars.
func TestEventReadersAreCounted(t *testing.T) {
	s := newServer(t)
	admin := s.dialAdmin(t)
	readers := func() int {
		status, err := admin.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return status.EventReaders
	}
	first, _ := s.subscribe(t, `{"op":"events"}`)
	s.subscribe(t, `{"op":"events"}`)
	if n := readers(); n != 2 {
		t.Errorf("the status contains %d event readers, want 2", n)
	}
	first.Close()
	waitUntil(t, func() bool { return readers() == 1 })
}
