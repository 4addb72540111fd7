package endpoint

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newFirstLineSession returns a session, and the descriptor of the client's end of its connection.
func newFirstLineSession(t *testing.T) (s *Session, client int) {
	t.Helper()
	c, client := newConnPair(t)
	s = newSession(c, new(drainState), 0)
	s.admission = &admission{}
	return s, client
}

// TestFirstLineNeedsFewReads sends long first lines, with and without a newline. The session must
// read them with few system calls, because a client that sends no token could otherwise cost the
// broker much time. It must not read the bytes after the line.
func TestFirstLineNeedsFewReads(t *testing.T) {
	for _, c := range []struct {
		sent, line, rest string
		valid            bool
	}{
		{strings.Repeat("x", 99) + "\nrest", strings.Repeat("x", 99), "rest", true},
		{strings.Repeat("x", 9) + "\nrest\n", strings.Repeat("x", 9), "rest\n", true},
		{strings.Repeat("x", 1000), "", "", false},
		{"x\n" + strings.Repeat("x", 1000), "", "", false},
	} {
		s, client := newFirstLineSession(t)
		if _, err := unix.Write(client, []byte(c.sent)); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 100)
		line, err := s.ReadFirstLine(buffer, 10, time.Minute)
		if string(line) != c.line || (err == nil) != c.valid {
			t.Errorf("for %.20q, the line is %q, error %v", c.sent, line, err)
		}
		if reads := s.conn.busyReads; reads > 2 {
			t.Errorf("for %.20q, the session read %d times", c.sent, reads)
		}
		if !c.valid {
			continue
		}
		if n := len(c.line) + 1; strings.Trim(string(buffer[n:]), "\x00") != "" {
			t.Errorf("for %.20q, the buffer still contains %q after the line", c.sent, buffer[n:])
		}
		rest := make([]byte, 100)
		n, err := s.conn.Read(rest)
		if err != nil || string(rest[:n]) != c.rest {
			t.Errorf("after %.20q, the session read %q, error %v; want %q", c.sent, rest[:n], err, c.rest)
		}
	}
}

// TestFirstLineInPieces sends a first line one byte at a time. ReadFirstLine must return the
// whole line.
func TestFirstLineInPieces(t *testing.T) {
	s, client := newFirstLineSession(t)
	go func() { // ends after the last byte
		for _, b := range []byte("0123456789\nx") {
			unix.Write(client, []byte{b})
		}
	}()
	line, err := s.ReadFirstLine(make([]byte, 100), 5, time.Minute)
	if string(line) != "0123456789" || err != nil {
		t.Errorf("the line is %q, error %v", line, err)
	}
}
