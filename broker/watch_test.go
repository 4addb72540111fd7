package broker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// textSecrets converts pairs of the form NAME=value to secrets. The value of each secret
// begins with the tripwire.
func textSecrets(pairs ...string) map[schema.SecretName]schema.Value {
	secrets := map[schema.SecretName]schema.Value{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		secrets[schema.SecretName(name)] = schema.Value{Text: tripwire + value}
	}
	return secrets
}

// startWatch starts a watch, reads the response, and returns the connection.
func (s *testServer) startWatch(t *testing.T, project string) *rawConn {
	t.Helper()
	c := connect(t, s.projectSocket(project))
	if got := c.request(t, `{"op":"watch"}`); !strings.HasPrefix(got, `{"ok":true,"generation":`) {
		t.Fatalf("the answer to watch is %s", got)
	}
	return c
}

// expectChange reads one line. The line must report changes of exactly these names.
func (c *rawConn) expectChange(t *testing.T, names ...schema.SecretName) {
	t.Helper()
	line := c.readLine(t)
	var event schema.ChangedEvent
	if err := json.Unmarshal([]byte(line), &event); err != nil || event.Event != "changed" || !slices.Equal(event.Names, names) {
		t.Errorf("the line of the watch is %s, want a change of the names %v", line, names)
	}
	if strings.Contains(line, tripwire) {
		t.Error("the line contains the value of a secret")
	}
}

// TestWatchReportsOnlyAllowedSecrets changes secrets that are allowed for one of two
// projects, and secrets that are allowed for neither project. Each project must get lines
// only for its allowed secrets. The test reads every line, so it would find an unexpected
// line.
func TestWatchReportsOnlyAllowedSecrets(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A", "B")
	s.register(t, "web", "W")
	api, web := s.startWatch(t, "api"), s.startWatch(t, "web")

	s.push(t, textSecrets("A=1", "SECRET=1"))
	api.expectChange(t, "A")
	s.push(t, textSecrets("A=1", "SECRET=2", "W=1")) // W is new, and only web may fetch W
	s.push(t, textSecrets("A=1", "SECRET=3", "W=1")) // no project may fetch SECRET
	s.push(t, textSecrets("A=1", "W=1"))             // no project may fetch SECRET
	web.expectChange(t, "W")
	s.push(t, textSecrets("A=2", "B=2", "W=1"))
	api.expectChange(t, "A", "B")
	s.push(t, textSecrets("B=2", "W=2"))
	api.expectChange(t, "A") // A was removed
	web.expectChange(t, "W")
	// AAAA is the base64 form of three zero bytes. The broker must report that B has changed
	// from these bytes to the text AAAA.
	if _, err := s.dialAdmin(t).Push(context.Background(), pushLine(schema.PushRequest{SecretsB64: map[schema.SecretName][]byte{"B": {0, 0, 0}}})); err != nil {
		t.Fatal(err)
	}
	api.expectChange(t, "B")
	s.push(t, map[schema.SecretName]schema.Value{"B": {Text: "AAAA"}})
	api.expectChange(t, "B")
	web.expectChange(t, "W")
	if err := s.dialAdmin(t).Clear(context.Background()); err != nil {
		t.Fatal(err)
	}
	api.expectChange(t, "B")
	s.push(t, map[schema.SecretName]schema.Value{"B": {Text: "AAAA"}})
	api.expectChange(t, "B") // B exists again
}

// TestWatchReportsReload checks the line that a watch reports after a reload. The reload
// allows one more secret and removes another secret from the allowlist.
func TestWatchReportsReload(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A", "B", "ABSENT")
	s.push(t, textSecrets("A=1", "B=1", "C=1"))
	c := s.startWatch(t, "api")
	manifest := manifestText("api", "A", "C", "MISSING")
	if _, err := s.dialAdmin(t).Reload(context.Background(), schema.ReloadRequest{Name: "api", Manifest: &manifest}); err != nil {
		t.Fatal(err)
	}
	c.expectChange(t, "B", "C")
	s.push(t, textSecrets("A=1", "B=2", "C=1")) // not reported, because B is no longer allowed
	s.push(t, textSecrets("A=2", "B=3", "C=1"))
	c.expectChange(t, "A")
}

// TestReloadWakesWaitingGet reloads a project while a get-many waits for a missing secret. The new
// allowlist is empty, so the wait must end.
func TestReloadWakesWaitingGet(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	c := connect(t, s.projectSocket("api"))
	fmt.Fprintln(c, `{"op":"get-many","wait_ms":300000}`)
	for s.connections(t, "api") == 0 {
	}
	manifest := manifestText("api")
	if _, err := s.dialAdmin(t).Reload(context.Background(), schema.ReloadRequest{Name: "api", Manifest: &manifest}); err != nil {
		t.Fatal(err)
	}
	if got := c.readLine(t); got != `{"ok":true,"generation":0,"secrets":{},"errors":{}}` {
		t.Errorf("after the reload, the answer to the waiting get-many is %s", got)
	}
}

// TestWatchMergesChangesForSlowClient does not read from a watch while many pushes change
// many secrets. When the test then reads, every line must be complete, the number of lines must be
// at most half the number of pushes, and the last line must contain the last generation.
func TestWatchMergesChangesForSlowClient(t *testing.T) {
	s := newServer(t)
	var names []string
	for i := range 200 {
		names = append(names, fmt.Sprintf("%s_%03d", strings.Repeat("N", 120), i))
	}
	s.register(t, "api", names...)
	c := s.startWatch(t, "api")
	// A line with all names has about 25 kB, so a few lines fill the socket's buffer.
	admin := s.dialAdmin(t)
	const pushes = 60
	began := time.Now()
	for push := range pushes {
		secrets := map[schema.SecretName]schema.Value{}
		for _, name := range names {
			secrets[schema.SecretName(name)] = schema.Value{Text: fmt.Sprint(tripwire, push)}
		}
		if push == pushes-1 {
			secrets = textSecrets() // removes all secrets
		}
		if _, err := admin.Push(t.Context(), pushLine(schema.PushRequest{Secrets: secrets})); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	lines, last := 0, schema.ChangedEvent{}
	for last.Generation < pushes {
		line := c.readLine(t)
		var event schema.ChangedEvent
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			if took > schema.WriteTimeout/2 {
				t.Skip("this machine is too slow: the pushes took longer than the time in which a client must read a line")
			}
			t.Fatalf("a line of %d bytes is not valid JSON: %v", len(line), err)
		}
		if event.Generation <= last.Generation || len(event.Names) != len(names) {
			t.Fatalf("a line has generation %d and %d names, but the previous line has generation %d", event.Generation, len(event.Names), last.Generation)
		}
		lines, last = lines+1, event
	}
	if lines > pushes/2 {
		t.Errorf("got %d lines for %d pushes: the changes were not merged", lines, pushes)
	}
}

// TestWatchEndsReleaseConnection ends a watch in several ways. After each end, the broker must
// close the connection and must not count it any more.
func TestWatchEndsReleaseConnection(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	gone := func() {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); s.connections(t, "api") > 0; {
			if time.Now().After(end) {
				t.Fatal("the broker did not close the connection within 10 s")
			}
		}
	}
	s.startWatch(t, "api").Close()
	gone()
	s.startWatch(t, "api").Conn.(*net.UnixConn).CloseWrite()
	gone()
	c := s.startWatch(t, "api")
	if got := c.request(t, `{"op":"ping"}`); !strings.Contains(got, `"code":"protocol_error","message":"watch: `) || c.readLine(t) != "" {
		t.Errorf("a request after a watch was not refused, or the connection stayed open: the answer is %s", got)
	}
	gone()
	pipelined := connect(t, s.projectSocket("api"))
	fmt.Fprint(pipelined, `{"op":"watch"}`+"\n"+`{"op":"ping"}`+"\n")
	if first, second := pipelined.readLine(t), pipelined.readLine(t); !strings.HasPrefix(first, `{"ok":true`) || !strings.Contains(second, "protocol_error") {
		t.Errorf("the answers to a watch and to a second request that was sent with it are %s and %s", first, second)
	}
	gone()
	c = s.startWatch(t, "api")
	if err := s.dialAdmin(t).Unregister(context.Background(), "api"); err != nil {
		t.Fatal(err)
	}
	if got := c.readLine(t); got != "" {
		t.Errorf("the broker sent %s after the project was unregistered", got)
	}
	s.register(t, "api", "A")
	c = s.startWatch(t, "api")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.Shutdown(ctx)
	if ctx.Err() != nil {
		t.Error("the shutdown waited for a client that watches")
	}
	if got := c.readLine(t); got != "" {
		t.Errorf("the broker sent %s after its shutdown", got)
	}
}

// TestClientWatchSurvivesRestart restarts the broker during a watch of package client. The watch
// must not end, and must report each push before and after the restart. If the broker already has
// secrets when the client connects, the client must report an event without names.
func TestClientWatchSurvivesRestart(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	s.push(t, textSecrets("A=1"))
	project := client.NewProject(s.projectSocket("api"))
	ctx, cancel := context.WithCancel(t.Context())
	events, ended := make(chan schema.ChangedEvent), make(chan error, 1)
	go func() { ended <- project.Watch(ctx, func(e schema.ChangedEvent) { events <- e }) }()
	next := func(generation uint64, names ...schema.SecretName) {
		t.Helper()
		if e := <-events; e.Generation != generation || !slices.Equal(e.Names, names) {
			t.Errorf("the event is %+v, want generation %d and names %v", e, generation, names)
		}
	}
	next(1)
	s.push(t, textSecrets("A=2"))
	next(2, "A")
	s.restart(t)
	s.register(t, "api", "A")
	s.push(t, textSecrets("A=3"))
	// The event has no name if the client connects after the push, and the name A if it
	// connects before the push.
	if e := <-events; e.Generation != 1 || len(e.Names) > 0 && !slices.Equal(e.Names, []schema.SecretName{"A"}) {
		t.Errorf("the event after the restart is %+v", e)
	}
	s.push(t, textSecrets("A=4"))
	next(2, "A")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestClientWatchEndsWhenRefused sends a watch request to the admin socket, which refuses it. Watch
// of package client must then return the refusal.
func TestClientWatchEndsWhenRefused(t *testing.T) {
	s := newServer(t)
	err := client.NewProject(s.adminSocket).Watch(t.Context(), nil)
	if client.CodeOf(err) != schema.CodeProtocolError {
		t.Error(err)
	}
}
