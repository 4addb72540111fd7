package broker_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// TestDeniedTellsNothing asks for names outside the allowlist before a push,
// with and without such a secret, and after a clear: the answers are the same
// bytes but for the name.
func TestDeniedTellsNothing(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	c := connect(t, s.project("api"))
	answers := map[string]string{}
	ask := func(when string) {
		for _, name := range []string{"THERE", "ABSENT"} {
			for _, request := range []string{
				`{"op":"get","name":"NAME"}`, `{"op":"get","name":"NAME","wait_ms":300000}`,
				`{"op":"get-many","names":["NAME"],"wait_ms":300000}`,
			} {
				answer := c.ask(t, strings.ReplaceAll(request, "NAME", name))
				if i := strings.Index(answer, `"generation":`); i >= 0 {
					// Which generation is loaded is no secret: watch says it.
					answer = answer[:i] + answer[strings.IndexByte(answer[i:], ',')+i:]
				}
				answer = strings.ReplaceAll(answer, name, "NAME")
				if !strings.Contains(answer, `"code":"denied"`) {
					t.Fatalf("%s: %s is answered %s", when, name, answer)
				}
				if first, ok := answers[request]; ok && first != answer {
					t.Errorf("%s: %s is answered\n%s, before\n%s", when, name, answer, first)
				}
				answers[request] = answer
			}
		}
	}
	ask("before a push")
	s.push(t, map[schema.SecretName]schema.Value{"THERE": {Text: tripwire}})
	ask("after a push")
	if err := s.dial(t).Clear(context.Background()); err != nil {
		t.Fatal(err)
	}
	ask("after a clear")
}

// TestNoAdminOpOnProjectSocket tries every admin op with a request that the
// admin socket takes.
func TestNoAdminOpOnProjectSocket(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	s.push(t, map[schema.SecretName]schema.Value{"A": {Text: tripwire}})
	own := map[schema.Op]bool{}
	for _, op := range schema.ProjectOperations {
		own[op.Op] = true
	}
	for _, op := range schema.AdminOperations {
		if own[op.Op] {
			continue
		}
		answer := connect(t, s.project("api")).ask(t, fmt.Sprintf(
			`{"op":%q,"name":"api","secrets":{},"project_path":"/nowhere/api","manifest":""}`, op.Op))
		if !strings.Contains(answer, `"code":"protocol_error","message":"op must be one of the project socket's:`) {
			t.Errorf("%s on a project socket is answered %s", op.Op, answer)
		}
	}
	if answer := connect(t, s.project("api")).ask(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
		t.Errorf("something changed: %s", answer)
	}
}

// TestWait has a get wait for a push, for a reload that denies it, and in vain;
// and a client that goes away frees its connection.
func TestWait(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A", "B")
	project := client.NewProject(s.project("api"))
	ctx := context.Background()

	type got struct {
		response schema.GetResponse
		err      error
	}
	wait := func(name schema.SecretName) <-chan got {
		answer := make(chan got, 1)
		before := s.connections(t, "api")
		go func() {
			response, err := project.Get(ctx, name, time.Minute)
			answer <- got{response, err}
		}()
		for s.connections(t, "api") == before {
		}
		return answer
	}
	a, b := wait("A"), wait("B")
	s.push(t, map[schema.SecretName]schema.Value{"A": {Text: "one"}})
	if r := <-a; r.err != nil || *r.response.Value != "one" {
		t.Errorf("the push that A waited for: %v", r.err)
	}
	manifest := manifestOf("api", "A")
	if _, err := s.dial(t).Reload(ctx, schema.ReloadRequest{Name: "api", Manifest: &manifest}); err != nil {
		t.Fatal(err)
	}
	s.push(t, map[schema.SecretName]schema.Value{"B": {Text: tripwire}})
	if r := <-b; client.CodeOf(r.err) != schema.CodeDenied {
		t.Errorf("B, taken off the allowlist while it was waited for: %v", r.err)
	}
	if _, err := project.Get(ctx, "A", 5*time.Millisecond); client.CodeOf(err) != schema.CodeNotFound {
		t.Errorf("waiting in vain: %v", err)
	}
	gone := connect(t, s.project("api"))
	fmt.Fprintln(gone, `{"op":"get","name":"A","wait_ms":300000}`)
	for s.connections(t, "api") == 0 {
	}
	gone.Close()
	for s.connections(t, "api") > 0 {
	}
	// A request behind one that waits is answered in its turn.
	pipelined := connect(t, s.project("api"))
	fmt.Fprintln(pipelined, `{"op":"get","name":"A","wait_ms":20}`+"\n"+`{"op":"ping"}`)
	if first, second := pipelined.answer(t), pipelined.answer(t); !strings.Contains(first, "not_found") || !strings.Contains(second, `"project":"api"`) {
		t.Errorf("pipelined behind a wait: %s, %s", first, second)
	}
}

// TestWaitThroughShutdown stops the broker under a get that waits: it is left
// unanswered, because the next broker will have the answer.
func TestWaitThroughShutdown(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	ended := make(chan error, 1)
	c := connect(t, s.project("api"))
	fmt.Fprintln(c, `{"op":"get","name":"A","wait_ms":300000}`)
	for s.connections(t, "api") == 0 {
	}
	go func() {
		_, err := c.lines.ReadByte()
		ended <- err
	}()
	s.Close()
	if err := <-ended; err == nil {
		t.Error("a get that waits was answered by a broker that stops; the next one should answer")
	}
}

// TestConnectionLimit fills a project's connections: the next one is told so,
// and nobody else feels it.
func TestConnectionLimit(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	s.register(t, "web", "A")
	var open []*wireConn
	for range schema.MaxProjectConnections {
		c := connect(t, s.project("api"))
		c.ask(t, `{"op":"ping"}`)
		open = append(open, c)
	}
	refused := connect(t, s.project("api")).answer(t)
	if !strings.Contains(refused, `"code":"rate_limited"`) || !strings.Contains(refused, `"retry_after_seconds":1`) {
		t.Errorf("one connection too many is answered %s", refused)
	}
	if got := connect(t, s.project("web")).ask(t, `{"op":"ping"}`); !strings.Contains(got, `"ok":true`) {
		t.Errorf("another project: %s", got)
	}
	open[0].Close()
	for s.connections(t, "api") == schema.MaxProjectConnections {
	}
	if got := connect(t, s.project("api")).ask(t, `{"op":"ping"}`); !strings.Contains(got, `"ok":true`) {
		t.Errorf("after one has gone: %s", got)
	}
}

// TestUnfinishedLine ends a connection within a line.
func TestUnfinishedLine(t *testing.T) {
	s := newServer(t)
	c := connect(t, s.admin)
	fmt.Fprint(c, `{"op":"push-creds","secrets":{"A":"`+tripwire)
	c.Conn.(*net.UnixConn).CloseWrite()
	if got := c.answer(t); !strings.Contains(got, "within a line") || strings.Contains(got, tripwire) {
		t.Errorf("answered %s", got)
	}
}
