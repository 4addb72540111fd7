package endpoint

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// echoLines returns a handler. If a request contains the number n, the handler answers with a
// line of n bytes. inUse counts the answers that the session has not released yet.
func echoLines(inUse *atomic.Int64) Handler {
	handler := okHandler()
	handler.Batch = true
	handler.Answer = func(line []byte) Reply {
		size, _ := strconv.Atoi(string(line))
		text := bytes.Repeat(line, size/len(line)+1)[:size]
		inUse.Add(1)
		return Reply{Pieces: net.Buffers{text[:size/2], text[size/2:], []byte("\n")}, Release: func() { inUse.Add(-1) }}
	}
	return handler
}

// TestAnswersToRequestsOfOneWrite sends many requests in writes of different sizes. The answers
// have different sizes too. The answers must be complete and in order, and the session must
// release all answers.
func TestAnswersToRequestsOfOneWrite(t *testing.T) {
	var requests, want strings.Builder
	var inUse atomic.Int64
	handler := echoLines(&inUse)
	for i := range 3000 {
		size := i % 100
		switch {
		case i%50 == 0:
			size = 3 * maxWrite
		case i%10 == 0:
			size = maxWrite - i%7
		}
		fmt.Fprintln(&requests, size)
		want.Write(bytes.Join(handler.Answer([]byte(fmt.Sprint(size))).Pieces, nil))
	}
	inUse.Store(0)
	for _, portion := range []int{1 << 20, 4096, 1000, 37} {
		e, path := start(t, func(s *Session) { s.Run(handler) }, false)
		c := dial(t, path)
		go func() { // ends when all requests were sent or a write fails
			for text := requests.String(); text != ""; {
				n, err := io.WriteString(c, text[:min(portion, len(text))])
				if text = text[n:]; err != nil {
					return
				}
			}
			c.CloseWrite()
		}()
		if got, err := io.ReadAll(c); err != nil || string(got) != want.String() {
			t.Errorf("portions of %d bytes: the answers have %d bytes, error %v, want %d", portion, len(got), err, want.Len())
		}
		c.Close()
		waitUntil(t, func() bool { return e.Connections() == 0 })
		if n := inUse.Load(); n != 0 {
			t.Errorf("%d answers were not released", n)
		}
	}
}

// TestAnswersDoNotWaitForOtherRequests sends two requests together. While the broker waits for
// the second request, for example for a secret or for the rest of the line, the answer to the
// first request must arrive. Otherwise the first answer could contain a secret that was replaced
// during the wait.
func TestAnswersDoNotWaitForOtherRequests(t *testing.T) {
	for name, second := range map[string]string{"secret": "wait\n", "input": "watch\n", "work": "work\n", "rest of the line": "wa", "limit": "{}\n"} {
		handler := okHandler()
		handler.Batch = true
		_, path := start(t, func(s *Session) {
			handler := handler
			if name == "limit" {
				handler.Limit = NewLimiter(0.001, 1)
				handler.AnswerLimited = func(int) Reply { return Reply{Pieces: net.Buffers{[]byte("limited\n")}} }
			}
			handler.Answer = func(line []byte) Reply {
				switch string(line) {
				case "wait":
					<-s.Gone()
					return HangUp()
				case "work":
					s.Flush()
					<-s.Draining() // wait until the endpoint is closed after the test
					return HangUp()
				case "watch":
					input, stop := s.AwaitInput()
					defer stop()
					<-input
					return HangUp()
				}
				return Reply{Pieces: net.Buffers{[]byte("first\n")}}
			}
			s.Run(handler)
		}, false)
		c := dial(t, path)
		fmt.Fprint(c, "{}\n"+second)
		lines := bufio.NewReader(c)
		if answer, err := lines.ReadString('\n'); err != nil || answer != "first\n" {
			t.Errorf("%s: the first answer is %q, error %v", name, answer, err)
		}
		if name == "limit" {
			if answer, err := lines.ReadString('\n'); err != nil || answer != "limited\n" {
				t.Errorf("the second answer is %q, error %v", answer, err)
			}
		}
		c.Close()
	}
}

// TestAnswersAreReleasedAfterFailedWrite closes the connection while the broker answers requests
// that arrived together. After the write has failed, the broker must answer no more requests, and
// must release all answers.
func TestAnswersAreReleasedAfterFailedWrite(t *testing.T) {
	var inUse atomic.Int64
	handler := echoLines(&inUse)
	answer, answered := handler.Answer, 0
	received, closed := make(chan struct{}), make(chan struct{})
	handler.Answer = func(line []byte) Reply {
		if answered++; answered == 1 {
			close(received)
			<-closed
		}
		return answer(line)
	}
	e, path := start(t, func(s *Session) { s.Run(handler) }, false)
	c := dial(t, path)
	// The first write of the broker contains two answers, because maxWrite is too small for a third.
	fmt.Fprint(c, strings.Repeat(fmt.Sprintf("%d\n", maxWrite*2/5), 1000))
	<-received
	c.Close()
	close(closed)
	waitUntil(t, func() bool { return e.Connections() == 0 })
	if n := inUse.Load(); n != 0 {
		t.Errorf("%d answers were not released", n)
	}
	if answered > 3 {
		t.Errorf("%d requests were answered, although sending the first two answers failed", answered)
	}
}

// TestLateReaderGetsAllAnswers sends many requests together, but does not read answers until the
// connection has left the poller. The client must still get all answers.
func TestLateReaderGetsAllAnswers(t *testing.T) {
	for _, size := range []int{10, 100, 255, 300, 1000, 1500} {
		var inUse atomic.Int64
		session := make(chan *Session, 1)
		_, path := start(t, func(s *Session) { session <- s; s.Run(echoLines(&inUse)) }, false)
		c := dial(t, path)
		const requests = 2000
		fmt.Fprint(c, strings.Repeat(fmt.Sprintln(size), requests))
		s := <-session
		waitUntil(t, func() bool { return !s.conn.inPoller() })
		c.CloseWrite()
		if answers, err := io.ReadAll(c); err != nil || len(answers) != requests*(size+1) {
			t.Errorf("the answers have %d bytes, error %v, want %d", len(answers), err, requests*(size+1))
		}
	}
}
