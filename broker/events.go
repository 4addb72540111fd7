package broker

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// maxEvent is larger than the longest text that an event stream writes at once: an events.missed,
// and an event with the longest name of a project.
const maxEvent = 1 << 10

// While the client of an event stream reads too slowly, the broker checks again and again
// whether it can send the next event. The time between two checks begins with minRoomInterval
// and is at most maxRoomInterval.
const (
	minRoomInterval = 100 * time.Microsecond
	maxRoomInterval = 100 * time.Millisecond
)

// eventStreams answers the requests for the event stream.
type eventStreams struct {
	log        *audit.Log
	instanceID string
	readers    atomic.Int32 // number of connections that receive the stream
}

// serve answers an events request. Then it writes the audit events, one in each line, until the
// connection must end. It returns the last reply on the connection.
//
// serve takes an event out of the memory of the audit log only if it can send the event at
// once. So a slow client needs no additional memory, and does not delay the audit log. If newer
// events replace events that serve has not taken yet, the client gets a line with the number of
// the replaced events.
func (e *eventStreams) serve(s *endpoint.Session, line []byte) endpoint.Reply {
	var request schema.EventsRequest
	err := wire.Decode(line, &request, schema.MaxDepth)
	clear(line) // before AwaitInput, which can read into the same memory
	if err != nil {
		return endpoint.RefuseMalformed(string(schema.OpEvents), err)
	}
	e.readers.Add(1)
	defer e.readers.Add(-1)
	// After an events request, the client must not send anything. If it does, serve refuses the
	// input with a protocol error.
	input, stop := s.AwaitInput()
	defer stop()
	reader, recent := e.log.Subscribe(request.Since)
	reply := endpoint.Answer(schema.EventsResponse{OK: true, InstanceID: e.instanceID, Recent: recent, First: reader.Number()})
	interval := minRoomInterval
	for s.Write(reply) {
		for reply.Pieces = nil; reply.Pieces == nil; {
			var changed <-chan struct{}
			var checkAgain <-chan time.Time
			if s.HasRoom(maxEvent) {
				reply.Pieces, changed = nextEvents(reader)
				interval = minRoomInterval
			} else {
				checkAgain = time.After(interval)
				interval = min(2*interval, maxRoomInterval)
			}
			select {
			case <-changed:
			case <-checkAgain:
			case <-s.Draining():
				return endpoint.HangUp()
			case err := <-input:
				if err != nil {
					return endpoint.HangUp()
				}
				refusal := endpoint.Refuse(schema.CodeProtocolError, "events: no other request is allowed on this connection")
				refusal.End = true
				return refusal
			}
		}
	}
	return endpoint.HangUp()
}

// alwaysClosed is a closed channel, so a receive from it never waits.
var alwaysClosed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// nextEvents returns the line of the next event. If the reader missed events before this event, an
// events.missed is the first of two lines. If there is no event yet, lines is nil, and the channel
// changed is closed as soon as there is an event. If there is an event, changed is already closed.
func nextEvents(reader *audit.Reader) (lines net.Buffers, changed <-chan struct{}) {
	line, missed, changed := reader.Next()
	if line == nil {
		return nil, changed
	}
	if missed > 0 {
		lines = endpoint.Answer(schema.EventsMissed{EventHeader: audit.Header(schema.EventEventsMissed), Count: missed}).Pieces
	}
	return append(lines, line), alwaysClosed
}
