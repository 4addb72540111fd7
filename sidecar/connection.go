package sidecar

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// The pauses between two tries to reach the broker, each twice the last, and
// each at random between its half and its whole, so that many sidecars do not
// come back in step.
const (
	firstRetry = 10 * time.Millisecond
	lastRetry  = 2 * time.Second
)

// A link is the admin connection, which is held open: its end is how the
// sidecar learns at once that the broker went away, and its secrets with it.
type link struct {
	socket string
	admin  *client.Admin // nil: not connected
	ended  <-chan struct{}
	stop   func() // ends the watch for the end
	retry  time.Duration
	// worked says that this connection did what it is for. That one could be made
	// says little: a broker that ends each would be asked without a pause.
	worked bool
}

// call uses the connection, which is not watched meanwhile. Any error but a
// refusal of the broker's closes it.
func (l *link) call(use func(*client.Admin) error) error {
	l.stop()
	err := use(l.admin)
	if err != nil && client.CodeOf(err) == "" {
		l.admin.Close()
		l.admin, l.ended = nil, nil
		return err
	}
	l.worked, l.retry = true, 0
	l.ended, l.stop = l.admin.Closed()
	return err
}

// dial connects and asks for the broker's status, which says whether both ends
// speak the same protocol and what the broker holds.
func (l *link) dial(ctx context.Context) (schema.StatusResponse, error) {
	admin, err := client.DialAdmin(ctx, l.socket)
	if err != nil {
		return schema.StatusResponse{}, err
	}
	status, err := admin.Status(ctx)
	if err == nil && status.ProtocolVersion != schema.ProtocolVersion {
		err = fmt.Errorf("the broker speaks protocol %d, and this sidecar %d: install the one that came with broker %s",
			status.ProtocolVersion, schema.ProtocolVersion, status.BrokerVersion)
	}
	if err != nil {
		admin.Close()
		return schema.StatusResponse{}, err
	}
	l.admin, l.worked = admin, false
	l.ended, l.stop = admin.Closed()
	return status, nil
}

// close ends the connection.
func (l *link) close() {
	if l.admin != nil {
		l.stop()
		l.admin.Close()
		l.admin, l.ended = nil, nil
	}
}

// pause returns how long to wait before the next try.
func (l *link) pause() time.Duration {
	l.retry = min(max(2*l.retry, firstRetry), lastRetry)
	return l.retry/2 + rand.N(l.retry/2)
}
