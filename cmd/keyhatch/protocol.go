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
// version. Without this check, decoding a later answer could fail with an unclear error. If
// the broker is unreachable, checkProtocol waits for the broker, for at most wait.
func checkProtocol(ctx context.Context, project *client.Project, wait time.Duration) error {
	pong, err := project.Ping(ctx, wait)
	if err != nil {
		return err
	}
	if pong.ProtocolVersion != schema.ProtocolVersion {
		return &cli.Error{
			Err:  fmt.Errorf("the broker uses protocol version %d, but this keyhatch command uses version %d", pong.ProtocolVersion, schema.ProtocolVersion),
			Hint: "install version " + pong.BrokerVersion + " of the keyhatch command, because the broker has this version",
		}
	}
	return nil
}
