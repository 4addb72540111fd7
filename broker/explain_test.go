package broker_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/schema"
)

// explain returns the answer of the admin op explain for the secret A of the project api.
func (s *testServer) explain(t *testing.T) schema.ExplainResponse {
	t.Helper()
	response, err := s.dialAdmin(t).Explain(context.Background(), schema.ExplainRequest{Name: "api", Secret: "A"})
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// TestExplainReportsChangedMode changes the mode of a project's socket file, as root in a container
// can do. explain must report each mode that does not allow every user to connect.
func TestExplainReportsChangedMode(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	for _, c := range []struct {
		mode    os.FileMode
		changed bool
	}{{0o666, false}, {0o600, true}, {0, true}, {0o777, false}} {
		if err := os.Chmod(s.projectSocket("api"), c.mode); err != nil {
			t.Fatal(err)
		}
		if r := s.explain(t); r.SocketModeChanged != c.changed || !r.SocketInPlace {
			t.Errorf("with mode %o, explain returned %+v", c.mode, r)
		}
	}
}

// TestExplainReportsUsedConnections opens as many connections as a project can have. explain must
// report too many connections until the test closes the connections.
func TestExplainReportsUsedConnections(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	if r := s.explain(t); r.TooManyConnections {
		t.Errorf("without connections, explain returned %+v", r)
	}
	var open []*rawConn
	for range schema.MaxProjectConnections {
		c := connect(t, s.projectSocket("api"))
		c.request(t, `{"op":"ping"}`)
		open = append(open, c)
	}
	if r := s.explain(t); !r.TooManyConnections {
		t.Errorf("with all connections, explain returned %+v", r)
	}
	for _, c := range open {
		c.Close()
	}
	waitUntil(t, func() bool { return !s.explain(t).TooManyConnections })
}

// A failingWriter writes to out. While fails is true, it returns an error and writes nothing. While
// blocked is locked, Write waits.
type failingWriter struct {
	fails   atomic.Bool
	blocked sync.Mutex
	out     *lockedBuffer
}

func (w *failingWriter) Write(p []byte) (int, error) {
	w.blocked.Lock()
	defer w.blocked.Unlock()
	if w.fails.Load() {
		return 0, errors.New("no space left on device")
	}
	return w.out.Write(p)
}

// TestExplainReportsUnavailableAudit makes the audit log of a broker fail, and later makes it wait.
// If the broker requires audit, explain must report each of these problems at once, because the
// broker refuses each get. If the broker does not require audit, explain must not report them.
func TestExplainReportsUnavailableAudit(t *testing.T) {
	for _, required := range []bool{true, false} {
		writer := &failingWriter{}
		s := newServerWithConfig(t, func(config *broker.Config) {
			writer.out = &lockedBuffer{}
			events, err := audit.Open(audit.Config{Out: writer, Required: required, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(events.Close)
			old := config.Audit
			audit.Record(old, schema.BrokerStopped{EventHeader: audit.Header(schema.EventBrokerStopped)}) // newServerWithConfig checks that this event is in s.log
			config.Audit = events
		})
		s.register(t, "api", "A")
		if s.explain(t).AuditUnavailable {
			t.Error("explain reports an audit log that works")
		}
		writer.fails.Store(true)
		if r := s.explain(t); r.AuditUnavailable != required {
			t.Errorf("while writing fails and required is %v, explain returned %+v", required, r)
		}
		writer.fails.Store(false)
		if s.explain(t).AuditUnavailable {
			t.Error("explain reports an audit log that works again")
		}
		writer.blocked.Lock()
		if r := s.explain(t); r.AuditUnavailable != required {
			t.Errorf("while writing takes too long and required is %v, explain returned %+v", required, r)
		}
		writer.blocked.Unlock()
	}
}
