package endpoint

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// TestLongRequestsCountAsSeveral sends two long requests. The second request must exceed the
// limit of 10 requests, because each of the long requests counts as 10.
func TestLongRequestsCountAsSeveral(t *testing.T) {
	handler := okHandler()
	handler.Limit = NewLimiter(0.001, 10) // a burst of 10 requests
	_, path := start(t, func(s *Session) { s.Run(handler) }, false)
	c := dial(t, path)
	lines := bufio.NewReader(c)
	for i, want := range []string{`"ok":true`, "rate_limited"} {
		fmt.Fprintln(c, strings.Repeat("x", 9*requestUnit))
		if answer, err := lines.ReadString('\n'); err != nil || !strings.Contains(answer, want) {
			t.Errorf("the answer to request %d is %s, error %v, want %s", i, answer, err, want)
		}
	}
}

// TestResponsesCount requests two large responses. The second request must exceed the limit
// of 10 requests, because a large response counts as several requests.
func TestResponsesCount(t *testing.T) {
	handler := okHandler()
	handler.Limit = NewLimiter(0.001, 10) // a burst of 10 requests
	handler.Answer = func([]byte) Reply { return Reply{Pieces: net.Buffers{make([]byte, 9*responseUnit), []byte("\n")}} }
	_, path := start(t, func(s *Session) { s.Run(handler) }, false)
	c := dial(t, path)
	lines := bufio.NewReader(c)
	for i, limited := range []bool{false, true} {
		fmt.Fprintln(c, "{}")
		if answer, err := lines.ReadString('\n'); err != nil || strings.Contains(answer, "rate_limited") != limited {
			t.Errorf("the answer to request %d has %d bytes, error %v, want rate_limited: %v", i, len(answer), err, limited)
		}
	}
}

// TestAbortedResponsesCount requests a large response and closes the connection before it has
// read the response. The response must count against the limit as if the client had read the
// whole response.
func TestAbortedResponsesCount(t *testing.T) {
	handler := okHandler()
	handler.Limit = NewLimiter(0.001, 10) // a burst of 10 requests
	handler.Answer = func([]byte) Reply { return Reply{Pieces: net.Buffers{make([]byte, 9*responseUnit), []byte("\n")}} }
	e, path := start(t, func(s *Session) { s.Run(handler) }, false)
	c := dial(t, path)
	fmt.Fprintln(c, "{}")
	if _, err := io.ReadFull(c, make([]byte, 8*responseUnit)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	waitUntil(t, func() bool { return e.Connections() == 0 })
	if handler.Limit.Reserve(1, time.Now()) == 0 {
		t.Error("the next request need not wait, so the aborted response did not count")
	}
}

// TestIncompleteLinesCount sends a line that is too long, and a line without a newline. The
// broker has read these lines, so their lengths must count against the limit.
func TestIncompleteLinesCount(t *testing.T) {
	for name, line := range map[string]string{
		"too long": strings.Repeat("x", 2*schema.MaxRequest) + "\n",
		"no end":   strings.Repeat("x", 9*requestUnit),
	} {
		handler := okHandler()
		handler.Limit = NewLimiter(0.001, 9) // a burst of 9 requests
		e, path := start(t, func(s *Session) { s.Run(handler) }, false)
		c := dial(t, path)
		fmt.Fprint(c, line)
		c.CloseWrite()
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, func() bool { return e.Connections() == 0 })
		if handler.Limit.Reserve(1, time.Now()) == 0 {
			t.Errorf("%s: the next request need not wait, so the length of the line did not count", name)
		}
	}
}

// TestPiecesCount sends single bytes until the connection leaves the poller, and then the rest of
// the line. The line has less than requestUnit bytes, but must count as more than 10 requests,
// because reading single bytes costs the broker more (see outsideUnit).
func TestPiecesCount(t *testing.T) {
	var session atomic.Pointer[Session]
	handler := okHandler()
	handler.Limit = NewLimiter(0.001, 10) // a burst of 10 requests
	_, path := start(t, func(s *Session) { session.Store(s); s.Run(handler) }, false)
	c := dial(t, path)
	for session.Load() == nil || session.Load().conn.inPoller() {
		fmt.Fprint(c, " ")
		waitUntil(t, func() bool { return unsent(c) == 0 })
	}
	fmt.Fprintln(c, strings.Repeat(" ", 3*requestUnit/4))
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(answer, "rate_limited") {
		t.Errorf("the answer is %q, error %v, want rate_limited", answer, err)
	}
}

// TestLimitedRequestsCount sends a long request over the limit on a new connection. The broker
// reads the whole request before it refuses the request, so its length must count.
func TestLimitedRequestsCount(t *testing.T) {
	handler := okHandler()
	handler.Limit = NewLimiter(0.001, 10) // a burst of 10 requests
	handler.Limit.Reserve(10, time.Now())
	_, path := start(t, func(s *Session) { s.Run(handler) }, false)
	c := dial(t, path)
	before := handler.Limit.Reserve(1, time.Now())
	fmt.Fprintln(c, strings.Repeat(" ", 9*requestUnit))
	if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(answer, "rate_limited") {
		t.Errorf("the answer is %q, error %v, want rate_limited", answer, err)
	}
	// The limiter restores one request in 1000 seconds, so 9000 seconds are the time for 9
	// requests.
	if after := handler.Limit.Reserve(1, time.Now()); after < before+9000*time.Second {
		t.Errorf("the next request must wait for %v, and for %v before the long request, so the length of the request did not count", after, before)
	}
}

// TestRefusedRequestsCount sends a long request to an endpoint that refuses the client. The
// broker reads the request, so its length must count against the limit.
func TestRefusedRequestsCount(t *testing.T) {
	limit := NewLimiter(0.001, 10) // a burst of 10 requests
	e, path := start(t, func(s *Session) { s.WriteRefusal(Refuse(schema.CodePeerUnexpected, "no"), limit) }, false)
	c := dial(t, path)
	fmt.Fprintln(c, strings.Repeat(" ", 9*requestUnit))
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return e.Connections() == 0 })
	if limit.Reserve(1, time.Now()) == 0 {
		t.Error("the next request need not wait, so the length of the refused request did not count")
	}
}
