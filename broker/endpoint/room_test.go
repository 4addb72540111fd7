package endpoint

import (
	"bytes"
	"io"
	"testing"
)

// TestHasRoomReportsUnreadAnswers sends answers to a client that does not read, as long as
// HasRoom returns true. These writes must not take the connection out of the poller, and must not
// wait for the client. When the client has read the answers, HasRoom must return true again.
func TestHasRoomReportsUnreadAnswers(t *testing.T) {
	const size = 500
	full, read, done := make(chan int), make(chan struct{}), make(chan struct{})
	c, err := Connect(func(s *Session) {
		defer close(done)
		sent := 0
		for s.HasRoom(size) {
			if !s.Write(Reply{Line: bytes.Repeat([]byte{'x'}, size)}) {
				t.Error("a write failed although there was room")
			}
			sent += size
		}
		if !s.conn.inPoller() {
			t.Error("the connection left the poller although there was room for each answer")
		}
		full <- sent
		<-read
		if !s.HasRoom(size) {
			t.Error("there is no room although the client has read all answers")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := <-full
	if sent == 0 || sent > sendBuffer {
		t.Errorf("there was room for %d bytes, want at most %d", sent, sendBuffer)
	}
	if _, err := io.CopyN(io.Discard, c, int64(sent)); err != nil {
		t.Fatal(err)
	}
	close(read)
	<-done
}
