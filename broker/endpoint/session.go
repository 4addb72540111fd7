package endpoint

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// A Session is one connection. It answers requests one after the other.
type Session struct {
	conn   *net.UnixConn
	drain  *drainState
	caller Caller
	lines  *wire.Reader // nil before Run
}

// A Handler describes how a session's requests are read and answered.
type Handler struct {
	// MaxLine is the longest request, in bytes, without its newline.
	MaxLine int
	// Grow provides the memory that lines are read into, as described at
	// wire.NewReader. nil means the Go heap.
	Grow func(pending []byte, size int) ([]byte, error)
	// Limit is the number of requests per second. nil means no limit.
	Limit *Limiter

	// Answer answers a request line, which is valid until it returns.
	Answer func(line []byte) Reply
	// AnswerTooLong answers a line of more than MaxLine bytes. The connection ends
	// after the reply.
	AnswerTooLong func() Reply
	// AnswerLimited answers a request over the limit; retryAfter is in seconds.
	AnswerLimited func(retryAfter int) Reply
}

// Caller returns the process that connected.
func (s *Session) Caller() Caller { return s.caller }

// Draining returns a channel that is closed when the endpoint begins to drain. A
// request that waits for something should then hang up: the client will ask the
// next broker.
func (s *Session) Draining() <-chan struct{} { return s.drain.draining }

// Gone returns a channel that is closed when the client ends the connection. It
// reads nothing, so a pipelined request stays to be read. stop must be called
// before the session reads again.
func (s *Session) Gone() (gone <-chan struct{}, stop func()) { return wire.WatchClosed(s.conn) }

// AwaitInput returns a channel that receives one value: nil when the client sends
// another byte, or the error that ends the connection. It has no timeout. stop
// must be called, and waits for the reading goroutine. Afterwards the session is
// of no further use.
func (s *Session) AwaitInput() (input <-chan error, stop func()) {
	// This may lift the deadline of a drain: select on Draining too.
	s.conn.SetReadDeadline(time.Time{})
	result, done := make(chan error, 1), make(chan struct{})
	go func() { // ended by stop
		defer close(done)
		result <- s.lines.Await()
	}()
	return result, func() {
		s.conn.SetReadDeadline(time.Unix(1, 0))
		<-done
	}
}

// Detach gives the memory of the last line to the caller: the session continues
// in new memory from Handler.Grow.
func (s *Session) Detach() error { return s.lines.Detach() }

// Run answers requests until the connection ends.
func (s *Session) Run(h Handler) {
	s.lines = wire.NewReader(s.conn, h.MaxLine, h.Grow)
	for {
		s.drain.setIdleDeadline(s.conn)
		if s.lines.Await() != nil {
			return // closed, idle for too long, or drained
		}
		s.conn.SetReadDeadline(time.Now().Add(schema.LineTimeout))
		line, err := s.lines.ReadLine()
		reply := s.answer(h, line, err)
		if !s.Write(reply) || reply.End {
			return
		}
	}
}

// answer returns the reply to a line, or to the error of reading it.
func (s *Session) answer(h Handler, line []byte, err error) Reply {
	var reply Reply
	switch {
	case err == nil:
		if h.Limit != nil {
			if retryAfter, exceeded := h.Limit.Exceeded(1); exceeded {
				return h.AnswerLimited(retryAfter)
			}
		}
		return h.Answer(line)
	case errors.Is(err, wire.ErrTooLong):
		s.lines.Discard() // within the line's timeout; the connection ends anyway
		reply = h.AnswerTooLong()
	case errors.Is(err, io.ErrUnexpectedEOF):
		reply = Refuse(schema.CodeProtocolError, "the connection ended before the end of a line: each request must end with a newline")
	case errors.Is(err, os.ErrDeadlineExceeded):
		reply = Refuse(schema.CodeProtocolError, "the rest of the line did not arrive within %v", schema.LineTimeout)
	}
	reply.End = true
	return reply
}

// Write sends a reply and reports whether the client took all of it within the
// write timeout.
func (s *Session) Write(reply Reply) bool {
	s.conn.SetWriteDeadline(time.Now().Add(schema.WriteTimeout))
	_, err := reply.Pieces.WriteTo(s.conn)
	if reply.Release != nil {
		reply.Release()
	}
	return err == nil
}
