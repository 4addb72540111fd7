package main

import (
	"context"
	"fmt"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// sameProtocol asks who is there, and refuses another version before anything
// is fetched: a clear word now beats a strange answer later.
func sameProtocol(ctx context.Context, project *client.Project, wait time.Duration) error {
	pong, err := project.Ping(ctx, wait)
	if err != nil {
		return err
	}
	if pong.ProtocolVersion != schema.ProtocolVersion {
		return &cli.Failure{
			Err:  fmt.Errorf("the broker speaks protocol %d, and this keyhatch %d", pong.ProtocolVersion, schema.ProtocolVersion),
			Hint: "install the keyhatch that came with the broker, version " + pong.BrokerVersion,
		}
	}
	return nil
}
