package endpoint

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// requestUnit is the size of a request that counts as one, in bytes. A longer request
// counts as more, because it costs the broker more.
const requestUnit = 4 << 10

// maxWrite is the largest write, in bytes. The kernel keeps the data of a larger one in
// separate pages, which a client can move into pipes with splice(2). Such pages are
// charged to the broker, but no longer counted as unread data.
const maxWrite = 2 << 10

// responseUnit is the size of a response that counts as one more request, in bytes.
const responseUnit = 16 << 10

// writeInterval is how often a blocked write checks whether it must continue.
const writeInterval = 250 * time.Millisecond

// refusalTimeout is how long a refused client may take to send its request.
const refusalTimeout = time.Second

// A Session is one connection. It answers requests one after the other.
type Session struct {
	conn   *conn
	drain  *drainState
	caller Caller
	lines  *wire.Reader // nil before Run

	limitedAt time.Time // of the last reply that refused a request over the limit
	prepaid   int       // requests that the new connection has already paid for
	connects  *Limiter  // of new connections; nil means no limit
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
func (s *Session) Gone() (gone <-chan struct{}, stop func()) {
	return wire.WatchClosed(s.conn.UnixConn)
}

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
		line, err := s.readLine()
		if err != nil {
			s.Write(s.answerReadError(h, err))
			return
		}
		reply, pause := s.answer(h, line)
		size := reply.size()
		if !s.Write(reply) || reply.End || !s.pause(pause) {
			return
		}
		if h.Limit != nil {
			h.Limit.Reserve(size / responseUnit)
		}
	}
}

// errNoRequest means that the connection ended between two requests: the client
// closed it, was silent for too long, or the endpoint drains.
var errNoRequest = errors.New("no request")

func (s *Session) readLine() ([]byte, error) {
	s.conn.beginLine()
	s.drain.setReadDeadline(s.conn, schema.IdleTimeout)
	if err := s.lines.Await(); err != nil {
		if errors.Is(err, errDescriptors) {
			return nil, err
		}
		return nil, errNoRequest
	}
	s.drain.setReadDeadline(s.conn, schema.LineTimeout)
	return s.lines.ReadLine()
}

// answerReadError returns the last reply of a session.
func (s *Session) answerReadError(h Handler, err error) (reply Reply) {
	switch {
	case errors.Is(err, wire.ErrTooLong):
		s.lines.Discard() // within the line's timeout, so that the client reads the answer
		return h.AnswerTooLong()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Refuse(schema.CodeProtocolError, "the connection ended before the end of a line: each request must end with a newline")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Refuse(schema.CodeProtocolError, "the rest of the line did not arrive within %v", schema.LineTimeout)
	case errors.Is(err, errDescriptors):
		return Refuse(schema.CodeProtocolError, "a client must not pass file descriptors")
	}
	return HangUp()
}

// answer answers a request, within the request limit.
//
// If the request is over the limit, the client gets at most one refusal per second and
// connection. It returns how long the session must not read then. Within that second,
// the request waits, and is answered afterwards.
func (s *Session) answer(h Handler, line []byte) (reply Reply, pause time.Duration) {
	if h.Limit == nil {
		return h.Answer(line), 0
	}
	cost := 1 + len(line)/requestUnit - s.prepaid
	s.prepaid = 0
	wait, cancel := h.Limit.Reserve(cost)
	if wait > 0 && time.Since(s.limitedAt) >= time.Second {
		s.limitedAt = time.Now()
		cancel()
		return h.AnswerLimited(int(math.Ceil(wait.Seconds()))), wait
	}
	if !s.pause(wait) {
		return HangUp(), 0
	}
	return h.Answer(line), 0
}

// pause waits for d and reads nothing from the client, so that the client causes almost
// no work. It returns false early if the client disconnects or the endpoint drains.
func (s *Session) pause(d time.Duration) (completed bool) {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	gone, stop := s.Gone()
	defer stop()
	select {
	case <-timer.C:
		return true
	case <-gone:
		return false
	case <-s.Draining():
		return false
	}
}

// Write sends a reply and reports whether the client took all of it within the
// write timeout.
func (s *Session) Write(reply Reply) bool {
	s.drain.setWriteDeadline(s.conn, schema.WriteTimeout)
	err := s.writePieces(reply.Pieces, reply.Expired)
	if reply.Release != nil {
		reply.Release()
	}
	return err == nil
}

// writePieces writes at most maxWrite bytes per system call.
func (s *Session) writePieces(pieces net.Buffers, expired func() bool) error {
	for len(pieces) > 0 {
		n, err := s.conn.send(firstBytes(pieces, maxWrite))
		if err == unix.EAGAIN {
			err = s.waitUntilWritable(expired)
		}
		if err != nil {
			return err
		}
		pieces = dropBytes(pieces, n)
	}
	return nil
}

// firstBytes returns the first size bytes of the pieces.
func firstBytes(pieces [][]byte, size int) (first [][]byte) {
	for _, piece := range pieces {
		if size <= len(piece) {
			return append(first, piece[:size])
		}
		first = append(first, piece)
		size -= len(piece)
	}
	return first
}

// dropBytes returns the pieces without their first size bytes.
func dropBytes(pieces net.Buffers, size int) net.Buffers {
	for len(pieces) > 0 && size >= len(pieces[0]) {
		size -= len(pieces[0])
		pieces = pieces[1:]
	}
	if size > 0 {
		pieces[0] = pieces[0][size:]
	}
	return pieces
}

// waitUntilWritable waits until the client may have read some of its answers.
func (s *Session) waitUntilWritable(expired func() bool) error {
	if s.conn.clientEndedRequests() {
		if err := s.conn.leavePoller(); err != nil {
			return err
		}
	}
	err := s.conn.waitUntilWritable(writeInterval)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	switch {
	case s.conn.isPast(&s.conn.writeDeadline):
		return err
	case expired != nil && expired():
		return errors.New("the answer has expired")
	case s.conn.clientEndedRequests() && s.conn.inPoller():
		s.connects.chargeNonReader()
	}
	return nil
}

// WriteRefusal sends a reply to a client that may not use the socket, and reads one
// request. Otherwise the client could get an error while it sends its request, and not
// see the reply.
func (s *Session) WriteRefusal(reply Reply) {
	if !s.Write(reply) {
		return
	}
	s.conn.CloseWrite()
	if err := s.conn.leavePoller(); err != nil {
		return
	}
	s.drain.setReadDeadline(s.conn, refusalTimeout)
	wire.NewReader(s.conn, schema.MaxRequest, nil).ReadLine()
}
