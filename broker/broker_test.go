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
	"time"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// tripwire is the prefix of most secret values in the tests of this package. Tests search for
// this prefix in places that must not contain a secret.
const tripwire = "TRIPWIRE"

// A testServer is a broker.Server with its own runtime directory.
type testServer struct {
	*broker.Server
	dir         string
	adminSocket string
	config      broker.Config
	log         *lockedBuffer // the server's log and its audit events
}

// newServer starts a server that runs until the end of the test. At the end, newServer
// checks that the log and the audit events contain no secret value.
func newServer(t *testing.T) *testServer {
	t.Helper()
	return newServerWithConfig(t, func(*broker.Config) {})
}

// newServerWithConfig starts a server in the same way as newServer, but change can modify
// its configuration first.
func newServerWithConfig(t *testing.T, change func(*broker.Config)) *testServer {
	t.Helper()
	// Use a short path, because the path of a socket is limited to 107 bytes.
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{dir: dir, log: &lockedBuffer{}}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	events, err := audit.Open(audit.Config{Out: s.log, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	s.config = broker.Config{RuntimeDir: dir + "/run", AdminGID: -1, Audit: events, Log: log, Version: "test"}
	change(&s.config)
	s.Server, err = broker.New(s.config)
	if err != nil {
		t.Fatal(err)
	}
	s.adminSocket = s.AdminSocket()
	t.Cleanup(func() {
		s.Close()
		events.Close()
		os.RemoveAll(dir)
		text := s.log.String()
		if strings.Contains(text, tripwire) {
			t.Error("the log contains the value of a secret")
		}
		if !strings.Contains(text, "broker.stopped") {
			t.Error("the log does not contain the server's events, so the search for secrets proves nothing")
		}
	})
	return s
}

// restart stops the server and starts another server in the same runtime directory. The
// new server has no secrets and no projects.
func (s *testServer) restart(t *testing.T) {
	t.Helper()
	s.Close()
	var err error
	if s.Server, err = broker.New(s.config); err != nil {
		t.Fatal(err)
	}
}

func (s *testServer) projectSocket(name string) string {
	return filepath.Join(s.dir, "run/projects", name, "broker.sock")
}

// register registers a project whose allowlist contains exactly these names.
func (s *testServer) register(t *testing.T, project string, names ...string) {
	t.Helper()
	text := manifestText(project, names...)
	if _, err := s.dialAdmin(t).Register(context.Background(), schema.RegisterRequest{
		Name: schema.ProjectName(project), ProjectPath: "/nowhere/" + project, Manifest: &text,
	}); err != nil {
		t.Fatal(err)
	}
}

func manifestText(project string, names ...string) string {
	text := "schema_version: 1\nproject: " + project + "\nsecrets:"
	if len(names) == 0 {
		return text + " {}\n"
	}
	for _, name := range names {
		text += "\n  " + name + ":"
	}
	return text + "\n"
}

func (s *testServer) dialAdmin(t *testing.T) *client.Admin {
	t.Helper()
	admin, err := client.DialAdmin(context.Background(), s.adminSocket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	return admin
}

func (s *testServer) push(t *testing.T, secrets map[schema.SecretName]schema.Value) schema.PushResponse {
	t.Helper()
	response, err := s.dialAdmin(t).Push(context.Background(), pushLine(schema.PushRequest{Secrets: secrets}))
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// A rawConn is a connection on which a test sends and reads lines directly.
type rawConn struct {
	net.Conn
	lines *bufio.Reader
}

func connect(t *testing.T, path string) *rawConn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &rawConn{c, bufio.NewReader(c)}
}

// request sends a line and returns the answer without its newline. It returns "" if the
// connection ended.
func (c *rawConn) request(t *testing.T, line string) string {
	t.Helper()
	if _, err := fmt.Fprintln(c, line); err != nil {
		t.Fatal(err)
	}
	return c.readLine(t)
}

func (c *rawConn) readLine(t *testing.T) string {
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

func waitUntil(t *testing.T, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the condition was not true within 10 s")
		}
	}
}

// connections returns the number of a project's connections that the admin op status
// reports.
func (s *testServer) connections(t *testing.T, name schema.ProjectName) int {
	t.Helper()
	admin, err := client.DialAdmin(context.Background(), s.adminSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	status, err := admin.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range status.Projects {
		if p.Name == name {
			return p.Connections
		}
	}
	return 0
}
