package main

import (
	"context"
	"fmt"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// checkProtocol pings the broker and returns an error if the broker uses another protocol
// version. Without this check, a later answer could fail to decode without a clear reason.
// If the broker is unreachable, checkProtocol waits for it up to wait.
func checkProtocol(ctx context.Context, project *client.Project, wait time.Duration) error {
	pong, err := project.Ping(ctx, wait)
	if err != nil {
		return err
	}
	if pong.ProtocolVersion != schema.ProtocolVersion {
		return &cli.Error{
			Err:  fmt.Errorf("the broker uses protocol version %d, but this keyhatch command uses version %d", pong.ProtocolVersion, schema.ProtocolVersion),
			Hint: "install the keyhatch command that belongs to the broker, version " + pong.BrokerVersion,
		}
	}
	return nil
}
