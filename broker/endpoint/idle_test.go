package endpoint

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// startParking serves an endpoint that parks idle sessions (see Handler.Park). parked is the
// number of sessions that are parked at the moment.
func startParking(t *testing.T, config Config) (e *Endpoint, path string, parked *atomic.Int64) {
	t.Helper()
	handler := okHandler()
	handler.Park, handler.Batch = true, true
	answer := handler.Answer
	handler.Answer = func(line []byte) Reply {
		if string(line) == "large" { // this request needs a large stack
			return Reply{Pieces: net.Buffers{[]byte(strings.Repeat("x", useStack(100))), []byte("\n")}}
		}
		return answer(line)
	}
	parked = new(atomic.Int64)
	config.Serve = func(s *Session) {
		if !s.active.IsZero() {
			parked.Add(-1)
		}
		if s.Run(handler); s.parked {
			parked.Add(1)
		}
	}
	e, path = startConfig(t, config, false)
	return e, path, parked
}

// useStack uses more than 100 bytes of stack for each of its n+1 nested calls.
func useStack(n int) int {
	var text [100]byte
	if n > 0 {
		text[n%100] = byte(useStack(n - 1))
	}
	return int(text[n%100]) + n
}

// TestParkedSessionContinues waits three times until a session is parked, and then sends two
// requests each time. The session must answer the requests. When the session is parked again, the
// test closes the connection, and the session must end.
func TestParkedSessionContinues(t *testing.T) {
	e, path, parked := startParking(t, Config{})
	t.Cleanup(func() { // this test has failed twice for an unknown reason
		e.mu.Lock()
		defer e.mu.Unlock()
		for s := range e.sessions {
			d := &s.conn.deadline
			t.Logf("parked %d, now %v: active %v, parkAt %v, in the poller %v, %d wakes, deadline %v, timer %v",
				parked.Load(), time.Now(), s.active, s.parkAt, s.conn.inPoller(), s.conn.wakes.Load(), d.time, d.timer)
		}
	})
	c := dial(t, path)
	lines := bufio.NewReader(c)
	for range 3 {
		waitUntil(t, func() bool { return parked.Load() == 1 })
		fmt.Fprint(c, "{}\n{}\n")
		for range 2 {
			if answer, err := lines.ReadString('\n'); err != nil || answer != "{\"ok\":true}\n" {
				t.Errorf("the answer is %q, error %v", answer, err)
			}
		}
	}
	waitUntil(t, func() bool { return parked.Load() == 1 })
	c.Close()
	waitUntil(t, func() bool { return e.Connections() == 0 })
}

// TestParkedSessionEndsWithItsClientOrTheEndpoint parks a session, and then either shuts down the
// reading side of its client, or drains or closes its endpoint. The session must end.
func TestParkedSessionEndsWithItsClientOrTheEndpoint(t *testing.T) {
	for name, end := range map[string]func(*Endpoint, *net.UnixConn){
		"the client does not read": func(_ *Endpoint, c *net.UnixConn) { c.CloseRead() },
		"drain":                    func(e *Endpoint, _ *net.UnixConn) { e.Drain(context.Background(), false) },
		"close":                    func(e *Endpoint, _ *net.UnixConn) { e.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			e, path, parked := startParking(t, Config{})
			c := dial(t, path)
			waitUntil(t, func() bool { return parked.Load() == 1 })
			// Call end again and again, because the broker may ignore the first shutdown of the
			// client's reading side. The broker checks for such a shutdown only after more events
			// than a normal client causes.
			waitUntil(t, func() bool { end(e, c); return e.Connections() == 0 })
		})
	}
}

// TestIncompleteLineHasDeadline sends a request and the beginning of another request with one
// write. The answer to the first request must arrive, and the session must wait at most
// schema.LineTimeout for the rest of the second request. The deadline of an idle connection would be
// much later.
func TestIncompleteLineHasDeadline(t *testing.T) {
	var session atomic.Pointer[Session]
	handler := okHandler()
	handler.Batch = true
	_, path := start(t, func(s *Session) { session.Store(s); s.Run(handler) }, false)
	c := dial(t, path)
	fmt.Fprint(c, "{}\n{")
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || answer != "{\"ok\":true}\n" {
		t.Errorf("the answer is %q, error %v", answer, err)
	}
	waitUntil(t, func() bool {
		d := &session.Load().conn.deadline
		d.mu.Lock()
		defer d.mu.Unlock()
		return !d.timer.IsZero() && time.Until(d.time) <= schema.LineTimeout && time.Until(d.timer) <= schema.LineTimeout
	})
}
