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
	minRetryDelay = 10 * time.Millisecond
	maxRetryDelay = 2 * time.Second
)

// A connection is the admin connection. It is held open, because its end is how the
// sidecar learns at once that the broker went away, and its secrets with it.
type connection struct {
	socket       string
	admin        *client.Admin // nil if not connected
	closed       <-chan struct{}
	stopWatching func() // stops watching for the end
	retryDelay   time.Duration
	// hasWorked is true once a request on this connection had an answer. To connect is
	// not enough: a broker that ends each connection would be dialed without a delay.
	hasWorked bool
}

// call makes a request on the connection, which is not watched meanwhile. Any error but a
// refusal of the broker's closes it.
func (c *connection) call(request func(*client.Admin) error) error {
	c.stopWatching()
	err := request(c.admin)
	if err != nil && client.CodeOf(err) == "" {
		c.admin.Close()
		c.admin, c.closed = nil, nil
		return err
	}
	c.hasWorked, c.retryDelay = true, 0
	c.closed, c.stopWatching = c.admin.WatchClosed()
	return err
}

// dial connects and asks for the broker's status, which says whether both ends
// speak the same protocol and what the broker holds.
func (c *connection) dial(ctx context.Context) (status schema.StatusResponse, err error) {
	admin, err := client.DialAdmin(ctx, c.socket)
	if err != nil {
		return schema.StatusResponse{}, err
	}
	status, err = admin.Status(ctx)
	if err == nil && status.ProtocolVersion != schema.ProtocolVersion {
		err = fmt.Errorf("the broker speaks protocol %d, and this sidecar %d: install the one that came with broker %s",
			status.ProtocolVersion, schema.ProtocolVersion, status.BrokerVersion)
	}
	if err != nil {
		admin.Close()
		return schema.StatusResponse{}, err
	}
	c.admin, c.hasWorked = admin, false
	c.closed, c.stopWatching = admin.WatchClosed()
	return status, nil
}

// close ends the connection.
func (c *connection) close() {
	if c.admin != nil {
		c.stopWatching()
		c.admin.Close()
		c.admin, c.closed = nil, nil
	}
}

// nextRetryDelay returns how long to wait before the next try.
func (c *connection) nextRetryDelay() time.Duration {
	c.retryDelay = min(max(2*c.retryDelay, minRetryDelay), maxRetryDelay)
	return c.retryDelay/2 + rand.N(c.retryDelay/2)
}
