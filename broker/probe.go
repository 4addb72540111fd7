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

// A probe is an internal project that the broker uses for health checks. Its allowlist is
// empty. The probe does not appear in the status, in counts, or in the audit log. It has no
// socket file, so a container that fills the file system cannot make a health check fail.
type probe struct{ serve func(*endpoint.Session) }

func newProbe(view keyring.View) (*probe, error) {
	parsed, err := manifest.Parse([]byte("schema_version: 1\nproject: probe\nsecrets: {}\n"))
	if err != nil {
		return nil, err
	}
	p := project.New(project.Config{Name: "probe", UIDs: allowedUIDs(nil), Manifest: parsed, View: view})
	return &probe{p.Serve}, nil
}

// check sends a get request to the probe and reads the answer. It returns an error if the answer
// is not a JSON response, or does not arrive before ctx ends. The code that answers the probe also
// answers the get requests of clients.
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
	// The broker refuses the request, so the answer contains no secret.
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return fmt.Errorf("probing: %w", err)
	}
	if !strings.HasPrefix(answer, `{"ok":`) {
		return errors.New("probing: the broker's answer is not a JSON response")
	}
	return nil
}
