package broker_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// tripwire begins every secret value of this package's tests.
const tripwire = "TRIPWIRE"

// A testServer is a Server on a directory of its own.
type testServer struct {
	*broker.Server
	dir    string
	admin  string
	config broker.Config
	log    *lockedBuffer // of the server's log and of its audit events
}

// newServer serves until the test ends, and then looks for tripwires in all
// that was logged.
func newServer(t *testing.T) *testServer {
	t.Helper()
	return newServerWith(t, func(*broker.Config) {})
}

// newServerWith is newServer with a change to its configuration.
func newServerWith(t *testing.T, change func(*broker.Config)) *testServer {
	t.Helper()
	// Short, because a socket's path has room for 107 bytes.
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{dir: dir, log: &lockedBuffer{}}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	audit, err := broker.OpenAudit("", s.log, false, log)
	if err != nil {
		t.Fatal(err)
	}
	s.config = broker.Config{RuntimeDir: dir + "/run", AdminGID: -1, Audit: audit, Log: log, Version: "test"}
	change(&s.config)
	s.Server, err = broker.New(s.config)
	if err != nil {
		t.Fatal(err)
	}
	s.admin = s.AdminSocket()
	t.Cleanup(func() {
		s.Close()
		audit.Close()
		os.RemoveAll(dir)
		text := s.log.String()
		if strings.Contains(text, tripwire) {
			t.Error("a secret's value was logged")
		}
		if !strings.Contains(text, "broker.stopped") {
			t.Error("the log that was searched for secrets is not the server's")
		}
	})
	return s
}

// restart ends the server and begins another one, which knows nothing.
func (s *testServer) restart(t *testing.T) {
	t.Helper()
	s.Close()
	var err error
	if s.Server, err = broker.New(s.config); err != nil {
		t.Fatal(err)
	}
}

func (s *testServer) project(name string) string {
	return filepath.Join(s.dir, "run/projects", name, "broker.sock")
}

// register registers a project that may have the secrets named.
func (s *testServer) register(t *testing.T, project string, names ...string) {
	t.Helper()
	text := manifestOf(project, names...)
	if _, err := s.dial(t).Register(context.Background(), schema.RegisterRequest{
		Name: schema.ProjectName(project), ProjectPath: "/nowhere/" + project, Manifest: &text,
	}); err != nil {
		t.Fatal(err)
	}
}

func manifestOf(project string, names ...string) string {
	text := "schema_version: 1\nproject: " + project + "\nsecrets:"
	if len(names) == 0 {
		return text + " {}\n"
	}
	for _, name := range names {
		text += "\n  " + name + ":"
	}
	return text + "\n"
}

func (s *testServer) dial(t *testing.T) *client.Admin {
	t.Helper()
	admin, err := client.DialAdmin(context.Background(), s.admin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	return admin
}

func (s *testServer) push(t *testing.T, secrets map[schema.SecretName]schema.Value) schema.PushResponse {
	t.Helper()
	response, err := s.dial(t).Push(context.Background(), pushLine(schema.PushRequest{Secrets: secrets}))
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// A wireConn speaks raw lines.
type wireConn struct {
	net.Conn
	lines *bufio.Reader
}

func connect(t *testing.T, path string) *wireConn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &wireConn{c, bufio.NewReader(c)}
}

// ask sends a line and returns the answer, both without newline; "" says that
// the connection ended.
func (c *wireConn) ask(t *testing.T, line string) string {
	t.Helper()
	if _, err := fmt.Fprintln(c, line); err != nil {
		t.Fatal(err)
	}
	return c.answer(t)
}

func (c *wireConn) answer(t *testing.T) string {
	t.Helper()
	answer, err := c.lines.ReadString('\n')
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return strings.TrimSuffix(answer, "\n")
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
