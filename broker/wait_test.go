package broker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// TestGetWaitsForSecret sends gets that wait. A wait must end when the secret is pushed, when a
// reload removes the name from the allowlist, when the timeout expires, and when the client closes
// the connection.
func TestGetWaitsForSecret(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A", "B")
	project := client.NewProject(s.projectSocket("api"))
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
		t.Errorf("get A does not return the pushed secret: %v", r.err)
	}
	manifest := manifestText("api", "A")
	if _, err := s.dialAdmin(t).Reload(ctx, schema.ReloadRequest{Name: "api", Manifest: &manifest}); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-b:
		if client.CodeOf(r.err) != schema.CodeDenied {
			t.Errorf("after a reload removed B from the allowlist, get B returned %v", r.err)
		}
	case <-time.After(20 * time.Second): // less than the time limit of get B
		t.Error("a reload that removed B from the allowlist did not end the wait of get B")
	}
	s.push(t, map[schema.SecretName]schema.Value{"B": {Text: tripwire}})
	if _, err := project.Get(ctx, "A", 5*time.Millisecond); client.CodeOf(err) != schema.CodeNotFound {
		t.Errorf("after the timeout, get A returned %v", err)
	}
	gone := connect(t, s.projectSocket("api"))
	fmt.Fprintln(gone, `{"op":"get","name":"A","wait_ms":300000}`)
	for s.connections(t, "api") == 0 {
	}
	gone.Close()
	for s.connections(t, "api") > 0 {
	}
	// If a client sends a second request while its first request waits, the broker
	// answers the second request after the wait has ended.
	pipelined := connect(t, s.projectSocket("api"))
	fmt.Fprintln(pipelined, `{"op":"get","name":"A","wait_ms":20}`+"\n"+`{"op":"ping"}`)
	if first, second := pipelined.readLine(t), pipelined.readLine(t); !strings.Contains(first, "not_found") || !strings.Contains(second, `"project":"api"`) {
		t.Errorf("the answers to two requests on one connection are %s and %s", first, second)
	}
}

// TestShutdownLeavesWaitingGetUnanswered stops the broker while a get waits. The broker
// must end the connection without an answer, so that the client sends its request to the
// next broker.
func TestShutdownLeavesWaitingGetUnanswered(t *testing.T) {
	s := newServer(t)
	s.register(t, "api", "A")
	ended := make(chan error, 1)
	c := connect(t, s.projectSocket("api"))
	fmt.Fprintln(c, `{"op":"get","name":"A","wait_ms":300000}`)
	for s.connections(t, "api") == 0 {
	}
	go func() {
		_, err := c.lines.ReadByte()
		ended <- err
	}()
	s.Close()
	if err := <-ended; err == nil {
		t.Error("the broker answered a waiting get when it stopped")
	}
}
