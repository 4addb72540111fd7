package main

import (
	"context"
	"fmt"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// checkProtocol pings the broker and refuses another protocol version. A clear error
// now is better than an answer that cannot be decoded later.
func checkProtocol(ctx context.Context, project *client.Project, wait time.Duration) error {
	pong, err := project.Ping(ctx, wait)
	if err != nil {
		return err
	}
	if pong.ProtocolVersion != schema.ProtocolVersion {
		return &cli.Error{
			Err:  fmt.Errorf("the broker speaks protocol %d, and this keyhatch %d", pong.ProtocolVersion, schema.ProtocolVersion),
			Hint: "install the keyhatch that came with the broker, version " + pong.BrokerVersion,
		}
	}
	return nil
}
