package endpoint

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"
)

func newPoller(t *testing.T) *ListenerPoller {
	t.Helper()
	p, err := NewListenerPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close) // after the endpoints of startConfig are closed, because newPoller is called first
	return p
}

// isWaiting reports whether the ListenerPoller waits for connections of n listeners.
func (p *ListenerPoller) isWaiting(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting) == n
}

func expectAnswer(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintln(c, "{}")
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || answer != "{\"ok\":true}\n" {
		t.Errorf("the answer is %q, error %v", answer, err)
	}
}

// TestParkedEndpointAcceptsConnections connects to an endpoint that is parked, and again after the
// endpoint was parked again.
func TestParkedEndpointAcceptsConnections(t *testing.T) {
	poller := newPoller(t)
	_, path := startConfig(t, Config{Poller: poller, Serve: answerOK}, false)
	for range 3 {
		waitUntil(t, func() bool { return poller.isWaiting(1) })
		expectAnswer(t, dial(t, path))
		expectAnswer(t, dial(t, path))
	}
}

// TestEndOfParkedEndpoint ends an endpoint that is parked. The ListenerPoller must then not wait for
// the connections of its listener.
func TestEndOfParkedEndpoint(t *testing.T) {
	for name, end := range map[string]func(*Endpoint){
		"drain":                   func(e *Endpoint) { e.Drain(context.Background(), false) },
		"drain and keep listener": func(e *Endpoint) { e.Drain(context.Background(), true) },
		"stop accepting":          func(e *Endpoint) { e.StopAccepting() },
		"close":                   func(e *Endpoint) { e.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			poller := newPoller(t)
			e, _ := startConfig(t, Config{Poller: poller, Serve: answerOK}, false)
			if !poller.isWaiting(1) {
				t.Error("the endpoint is not parked")
			}
			end(e)
			if !poller.isWaiting(0) {
				t.Error("the ListenerPoller still waits for connections")
			}
		})
	}
}

// TestParkedEndpointGivesItsSocketToAnother stops a parked endpoint, and starts another endpoint
// with a copy of the listener. The clients that connect after the stop belong to the other endpoint.
func TestParkedEndpointGivesItsSocketToAnother(t *testing.T) {
	poller := newPoller(t)
	config := Config{Poller: poller, MaxConnections: 8, Serve: func(*Session) { t.Error("the stopped endpoint serves a client") }}
	old, path := startConfig(t, config, false)
	old.config.Listener.SetUnlinkOnClose(false)
	file, err := old.config.Listener.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	copied, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	old.StopAccepting()
	c := dial(t, path)
	config.Listener, config.Serve, config.Log = copied.(*net.UnixListener), answerOK, slog.New(slog.DiscardHandler)
	e := New(config)
	e.Start()
	defer e.Close()
	old.Close()
	expectAnswer(t, c)
	expectAnswer(t, dial(t, path))
}

// TestReplacedListenerOfParkedEndpoint replaces the listener of a parked endpoint. The endpoint must
// accept connections on the new listener, and must be parked again.
func TestReplacedListenerOfParkedEndpoint(t *testing.T) {
	poller := newPoller(t)
	e, path := startConfig(t, Config{Poller: poller, Serve: answerOK}, false)
	path += "2"
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	e.ReplaceListener(listener)
	for range 2 {
		expectAnswer(t, dial(t, path))
		waitUntil(t, func() bool { return poller.isWaiting(1) })
	}
}

// TestEndpointOverItsLimitDelaysNoOther connects twice to an endpoint that allows one connection per
// hour. The second client waits, but a client of another endpoint with the same ListenerPoller must
// be served.
func TestEndpointOverItsLimitDelaysNoOther(t *testing.T) {
	poller := newPoller(t)
	connects := NewLimiter(1.0/3600, 1)
	limited, limitedPath := startConfig(t, Config{Poller: poller, Connects: connects, Serve: answerOK}, false)
	_, path := startConfig(t, Config{Poller: poller, Serve: answerOK}, false)
	for range 3 {
		dial(t, limitedPath)
	}
	waitUntil(t, func() bool { return limited.Connections() == 3 && connects.RetryAfter() > 0 })
	dial(t, limitedPath)
	for range 3 {
		expectAnswer(t, dial(t, path))
		waitUntil(t, func() bool { return poller.isWaiting(1) })
	}
}
