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

// texts makes secrets of NAME=value pairs, each value behind the tripwire.
func texts(pairs ...string) map[schema.SecretName]schema.Value {
	secrets := map[schema.SecretName]schema.Value{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		secrets[schema.SecretName(name)] = schema.Value{Text: tripwire + value}
	}
	return secrets
}

// watch begins to watch and returns the connection behind the answer.
func (s *testServer) watch(t *testing.T, project string) *wireConn {
	t.Helper()
	c := connect(t, s.project(project))
	if got := c.ask(t, `{"op":"watch"}`); !strings.HasPrefix(got, `{"ok":true,"generation":`) {
		t.Fatalf("watch is answered %s", got)
	}
	return c
}

// told reads one line and holds it against names.
func (c *wireConn) told(t *testing.T, names ...schema.SecretName) {
	t.Helper()
	line := c.answer(t)
	var event schema.ChangedEvent
	if err := json.Unmarshal([]byte(line), &event); err != nil || event.Event != "changed" || !slices.Equal(event.Names, names) {
		t.Errorf("told %s, want %v", line, names)
	}
	if strings.Contains(line, tripwire) {
		t.Error("a value went over the wire")
	}
}

// TestWatchTellsTheAllowed pushes what is allowed and what is not to two
// projects. Each line read is the next one there is, so a push that changes
// nothing for a project has sent it nothing.
func TestWatchTellsTheAllowed(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A", "B")
	s.register(t, "web", "W")
	api, web := s.watch(t, "api"), s.watch(t, "web")

	s.push(t, texts("A=1", "SECRET=1"))
	api.told(t, "A")
	s.push(t, texts("A=1", "SECRET=2", "W=1")) // for web alone
	s.push(t, texts("A=1", "SECRET=3", "W=1")) // for nobody
	s.push(t, texts("A=1", "W=1"))             // nor this
	web.told(t, "W")
	s.push(t, texts("A=2", "B=2", "W=1"))
	api.told(t, "A", "B")
	s.push(t, texts("B=2", "W=2"))
	api.told(t, "A") // which went
	web.told(t, "W")
	// A text is not the same secret as those bytes in base64, nor as a bundle.
	if _, err := s.dial(t).Push(context.Background(), pushLine(schema.PushRequest{SecretsB64: map[schema.SecretName][]byte{"B": {0, 0, 0}}})); err != nil {
		t.Fatal(err)
	}
	api.told(t, "B")
	s.push(t, map[schema.SecretName]schema.Value{"B": {Text: "AAAA"}})
	api.told(t, "B")
	web.told(t, "W")
	if err := s.dial(t).Clear(context.Background()); err != nil {
		t.Fatal(err)
	}
	api.told(t, "B")
	s.push(t, map[schema.SecretName]schema.Value{"B": {Text: "AAAA"}})
	api.told(t, "B") // it is there again
}

// TestWatchReload has a reload allow a secret and take one away.
func TestWatchReload(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A", "B", "ABSENT")
	s.push(t, texts("A=1", "B=1", "C=1"))
	c := s.watch(t, "api")
	manifest := manifestOf("api", "A", "C", "MISSING")
	if _, err := s.dial(t).Reload(context.Background(), schema.ReloadRequest{Name: "api", Manifest: &manifest}); err != nil {
		t.Fatal(err)
	}
	c.told(t, "B", "C")
	s.push(t, texts("A=1", "B=2", "C=1")) // B is not told any more
	s.push(t, texts("A=2", "B=3", "C=1"))
	c.told(t, "A")
}

// TestReloadWakes has a reload, with no push, answer a get that waits.
func TestReloadWakes(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	c := connect(t, s.project("api"))
	fmt.Fprintln(c, `{"op":"get-many","wait_ms":300000}`)
	for s.connections(t, "api") == 0 {
	}
	manifest := manifestOf("api")
	if _, err := s.dial(t).Reload(context.Background(), schema.ReloadRequest{Name: "api", Manifest: &manifest}); err != nil {
		t.Fatal(err)
	}
	if got := c.answer(t); got != `{"ok":true,"generation":0,"secrets":{},"errors":{}}` {
		t.Errorf("answered %s", got)
	}
}

// TestWatchMerges does not read while many pushes change many names. What the
// socket holds are whole lines; the last state is told, and nothing is lost.
func TestWatchMerges(t *testing.T) {
	s := newServer(t)
	var names []string
	for i := range 200 {
		names = append(names, fmt.Sprintf("%s_%03d", strings.Repeat("N", 120), i))
	}
	s.register(t, "api", names...)
	c := s.watch(t, "api")
	// A line with all of them has some 25 kB: the socket is full after a few.
	admin := s.dial(t)
	const pushes = 200
	began := time.Now()
	for push := range pushes {
		secrets := map[schema.SecretName]schema.Value{}
		for _, name := range names {
			secrets[schema.SecretName(name)] = schema.Value{Text: fmt.Sprint(tripwire, push)}
		}
		if push == pushes-1 {
			secrets = texts() // all go
		}
		if _, err := admin.Push(t.Context(), pushLine(schema.PushRequest{Secrets: secrets})); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	lines, last := 0, schema.ChangedEvent{}
	for last.Generation < pushes {
		line := c.answer(t)
		if line == "" && took > schema.WriteTimeout/2 {
			t.Skip("this machine was too slow to push within the time that a client may leave a line unread")
		}
		var event schema.ChangedEvent
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("a broken line of %d bytes: %v", len(line), err)
		}
		if event.Generation <= last.Generation || len(event.Names) != len(names) {
			t.Fatalf("generation %d with %d names behind generation %d", event.Generation, len(event.Names), last.Generation)
		}
		lines, last = lines+1, event
	}
	if lines > pushes/2 {
		t.Errorf("%d lines for %d pushes: they were not merged", lines, pushes)
	}
}

// TestWatchEnds ends a watch in every way there is, and sees that the broker
// gives the connection up.
func TestWatchEnds(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	gone := func() {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); s.connections(t, "api") > 0; {
			if time.Now().After(end) {
				t.Fatal("the connection is still counted")
			}
		}
	}
	s.watch(t, "api").Close()
	gone()
	s.watch(t, "api").Conn.(*net.UnixConn).CloseWrite()
	gone()
	c := s.watch(t, "api")
	if got := c.ask(t, `{"op":"ping"}`); !strings.Contains(got, `"code":"protocol_error","message":"watch: `) || c.answer(t) != "" {
		t.Errorf("a request behind a watch is answered %s, and the connection goes on", got)
	}
	gone()
	pipelined := connect(t, s.project("api"))
	fmt.Fprint(pipelined, `{"op":"watch"}`+"\n"+`{"op":"ping"}`+"\n")
	if first, second := pipelined.answer(t), pipelined.answer(t); !strings.HasPrefix(first, `{"ok":true`) || !strings.Contains(second, "protocol_error") {
		t.Errorf("a request sent with a watch: %s, %s", first, second)
	}
	gone()
	c = s.watch(t, "api")
	if err := s.dial(t).Unregister(context.Background(), "api"); err != nil {
		t.Fatal(err)
	}
	if got := c.answer(t); got != "" {
		t.Errorf("unregistered, and told %s", got)
	}
	s.register(t, "api", "A")
	c = s.watch(t, "api")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.Shutdown(ctx)
	if ctx.Err() != nil {
		t.Error("the broker waited for a client that watches")
	}
	if got := c.answer(t); got != "" {
		t.Errorf("the broker stopped, and told %s", got)
	}
}

// TestClientWatch watches through a restart of the broker: what changed before
// a connection is announced without names, and no rotation is missed.
func TestClientWatch(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	s.push(t, texts("A=1"))
	project := client.NewProject(s.project("api"))
	ctx, cancel := context.WithCancel(t.Context())
	events, ended := make(chan schema.ChangedEvent), make(chan error, 1)
	go func() { ended <- project.Watch(ctx, func(e schema.ChangedEvent) { events <- e }) }()
	next := func(generation uint64, names ...schema.SecretName) {
		t.Helper()
		if e := <-events; e.Generation != generation || !slices.Equal(e.Names, names) {
			t.Errorf("%+v, want generation %d and %v", e, generation, names)
		}
	}
	next(1)
	s.push(t, texts("A=2"))
	next(2, "A")
	s.restart(t)
	s.register(t, "api", "A")
	s.push(t, texts("A=3"))
	// Whether the client was there before the push is a matter of luck.
	if e := <-events; e.Generation != 1 || len(e.Names) > 0 && !slices.Equal(e.Names, []schema.SecretName{"A"}) {
		t.Errorf("after the restart: %+v", e)
	}
	s.push(t, texts("A=4"))
	next(2, "A")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestClientWatchRefused sees that a refusal is no reason to go on.
func TestClientWatchRefused(t *testing.T) {
	s := newServer(t)
	err := client.NewProject(s.admin).Watch(t.Context(), nil)
	if client.CodeOf(err) != schema.CodeProtocolError {
		t.Error(err)
	}
}
