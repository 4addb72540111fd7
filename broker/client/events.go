package client

import (
	"context"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// Events starts an event stream. The stream begins with the events that were recorded after since
// and that the broker still has in its memory. If since is the zero time, the stream begins with
// all events in memory. After Events, call only NextEvent and Close.
func (a *Admin) Events(ctx context.Context, since time.Time) (response schema.EventsResponse, err error) {
	err = a.conn.call(ctx, schema.EventsRequest{Op: schema.OpEvents, Since: since}, &response, 0)
	return response, err
}

// NextEvent waits for the next event of the stream and returns it as one line of JSON. The line
// is valid until the next call of NextEvent.
func (a *Admin) NextEvent(ctx context.Context) ([]byte, error) {
	a.conn.SetDeadline(time.Time{}) // remove the deadline of the request; if this fails, the read fails too
	stop := context.AfterFunc(ctx, func() { a.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return a.conn.readLine(ctx, nil)
}
