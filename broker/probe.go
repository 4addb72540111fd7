package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/keyring"
	"github.com/keyhatch/keyhatch/broker/project"
	"github.com/keyhatch/keyhatch/manifest"
)

// A probe is a project of the broker's own, for health checks. It allows no secret, is
// in no list, and is neither counted nor recorded. It has no socket file, so that a
// container that fills the file system cannot make the health check fail.
type probe struct{ serve func(*endpoint.Session) }

func newProbe(view keyring.View) (*probe, error) {
	parsed, err := manifest.Parse([]byte("schema_version: 1\nproject: probe\nsecrets: {}\n"))
	if err != nil {
		return nil, err
	}
	p := project.New(project.Config{Name: "probe", UIDs: allowedUIDs("", nil), Manifest: parsed, View: view})
	return &probe{p.Serve}, nil
}

// check sends a get and reads the answer. The request goes through the same session,
// allowlist, and keyring code as every other get.
func (p *probe) check(ctx context.Context) error {
	conn, err := endpoint.Connect(p.serve)
	if err != nil {
		return fmt.Errorf("probing: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
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
