package sidecar

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// The minimum and the maximum delay before the next attempt to reach the broker. The
// delay doubles after each attempt. The actual delay is random, between half of the
// delay and the full delay, so that several sidecars do not retry at the same time.
const (
	minRetryDelay = 10 * time.Millisecond
	maxRetryDelay = 2 * time.Second
)

// A connection is the connection to the broker's admin socket. It stays open, so that
// the sidecar learns immediately when the broker ends and loses its secrets.
type connection struct {
	socket       string
	admin        *client.Admin // nil if not connected
	closed       <-chan struct{}
	stopWatching func() // must be called before admin is used
	retryDelay   time.Duration
	// hasWorked is true if the broker has answered a request on this connection, other
	// than the status request of dial. A successful dial is not enough: if a broker
	// accepts and then ends each connection, the retry delay must still grow.
	hasWorked bool
}

// call calls request with the connection and does not watch the connection during the
// call. If request returns an error that does not come from the broker, call closes the
// connection.
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

// dial connects and returns the broker's status. It returns an error if the broker uses
// another protocol version.
func (c *connection) dial(ctx context.Context) (status schema.StatusResponse, err error) {
	admin, err := client.DialAdmin(ctx, c.socket)
	if err != nil {
		return schema.StatusResponse{}, err
	}
	status, err = admin.Status(ctx)
	if err == nil && status.ProtocolVersion != schema.ProtocolVersion {
		err = fmt.Errorf("the broker uses protocol version %d, but this sidecar uses version %d: install the keyhatch-sidecar of broker version %s",
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

// close closes the connection if it is open.
func (c *connection) close() {
	if c.admin != nil {
		c.stopWatching()
		c.admin.Close()
		c.admin, c.closed = nil, nil
	}
}

// nextRetryDelay returns the delay before the next attempt.
func (c *connection) nextRetryDelay() time.Duration {
	c.retryDelay = min(max(2*c.retryDelay, minRetryDelay), maxRetryDelay)
	return c.retryDelay/2 + rand.N(c.retryDelay/2)
}
