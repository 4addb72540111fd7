package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// openProbe serves a project of the broker's own, which may fetch nothing that
// there is: its socket is how Probe gets in. It is in no list, and its gets are
// neither counted nor recorded.
func (s *Server) openProbe() error {
	if err := s.dir.mkdir("probe", 0o700, -1); err != nil {
		return err
	}
	parsed, err := manifest.Parse([]byte("schema_version: 1\nproject: probe\nsecrets: {}\n"), "probe")
	if err != nil {
		return err
	}
	listener, err := bind(filepath.Join(s.dir.path, "probe", "probe.sock"), 0o600, -1)
	if err != nil {
		return err
	}
	p := &project{server: s, name: "probe", uids: allowedUIDs("", nil), rates: newRates(0, 0), unrecorded: true}
	p.socketPath = listener.Addr().String()
	p.manifest.Store(parsed)
	p.endpoint = newEndpoint(listener, schema.MaxProjectConnections, s.log, p.serve)
	p.endpoint.start()
	s.probe = p
	return nil
}

// Probe goes the way of a get: it connects, asks and is answered, by the same
// accept loop, session, gate and keyring that serve the projects. An error says
// that the broker no longer works.
func (s *Server) Probe(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", s.probe.socketPath)
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
	// The answer is a refusal, so no secret comes this way.
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return fmt.Errorf("probing: %w", err)
	}
	if !strings.HasPrefix(answer, `{"ok":`) {
		return errors.New("probing: the answer is none")
	}
	return nil
}
