package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/keyring"
	"github.com/keyhatch/keyhatch/broker/project"
	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// A probe is a project of the broker's own, whose socket is the way in for health
// checks. It allows no secret, is in no list, and is neither counted nor recorded.
type probe struct{ endpoint *endpoint.Endpoint }

func startProbe(dir *rundir.Dir, view keyring.View, log *slog.Logger) (*probe, error) {
	parsed, err := manifest.Parse([]byte("schema_version: 1\nproject: probe\nsecrets: {}\n"), "probe")
	if err != nil {
		return nil, err
	}
	listener, err := dir.BindProbe()
	if err != nil {
		return nil, err
	}
	p := project.New(project.Config{Name: "probe", UIDs: allowedUIDs("", nil), Manifest: parsed, View: view})
	e := endpoint.New(endpoint.Config{
		Listener: listener, MaxConnections: schema.MaxProjectConnections, Serve: p.Serve, Log: log,
	})
	e.Start()
	return &probe{e}, nil
}

// check connects, sends a get, and reads the answer. The request takes the same
// way through accept loop, session, allowlist, and keyring as every other get.
func (p *probe) check(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", p.endpoint.SocketPath())
	if err != nil {
		return fmt.Errorf("probing: %w", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if _, err := conn.Write([]byte(`{"op":"get","name":"PROBE"}` + "\n")); err != nil {
		return fmt.Errorf("probing: %w", err)
	}
	// The answer is a refusal, so it contains no secret.
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return fmt.Errorf("probing: %w", err)
	}
	if !strings.HasPrefix(answer, `{"ok":`) {
		return errors.New("probing: the answer is not a response")
	}
	return nil
}
