package sidecar

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// minRetryDelay and maxRetryDelay limit the retry delay, which is the time before the
// next attempt to reach the broker. The retry delay doubles after each failed attempt.
// The sidecar waits for a random time between half of the retry delay and the full retry
// delay, so that several sidecars do not retry at the same time.
const (
	minRetryDelay = 10 * time.Millisecond
	maxRetryDelay = 2 * time.Second
)

// A connection is the sidecar's connection to the broker's admin socket. The sidecar does
// not close the connection between requests. If the broker process ends, it loses its secrets
// and the connection breaks, so the sidecar notices the loss immediately.
type connection struct {
	socket       string
	tokenFile    string          // "" to send no admin token
	admin        *client.Admin   // nil if not connected
	closed       <-chan struct{} // closed when the broker ends the connection
	stopWatching func()          // ends the watching of the connection; call it before each request
	retryDelay   time.Duration
	// hasWorked is true if the broker has answered a request on this connection. The
	// status request of dial does not count, because the retry delay must also grow if a
	// broker accepts each connection and then ends the connection.
	hasWorked bool
}

// call calls request with the admin client. During request, call does not watch whether
// the broker ends the connection. If request returns an error that is not an answer of
// the broker, call closes the connection.
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

// dial connects to the broker, sends the admin token if tokenFile is not "", reports the number of
// problems with the store, and returns the broker's status. If the broker uses another protocol
// version, dial returns an error.
func (c *connection) dial(ctx context.Context, storeProblems int) (status schema.StatusResponse, err error) {
	admin, err := client.DialAdminWithToken(ctx, c.socket, c.tokenFile)
	if err != nil {
		return schema.StatusResponse{}, err
	}
	status, err = admin.ReportStoreProblems(ctx, storeProblems)
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

// nextRetryDelay doubles the retry delay, up to maxRetryDelay. It returns a random time, which
// is at least half of the new retry delay and less than the full retry delay.
func (c *connection) nextRetryDelay() time.Duration {
	c.retryDelay = min(max(2*c.retryDelay, minRetryDelay), maxRetryDelay)
	return c.retryDelay/2 + rand.N(c.retryDelay/2)
}
