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

// requestUnit is the size of a part of a request, in bytes. Each full part of a request
// counts as one more request, because long requests cost the broker more.
const requestUnit = 4 << 10

// outsideUnit is the size of a part of a request on a connection outside the poller (see
// socket). It is smaller than requestUnit, so that these bytes cost more. The client may send
// them one at a time, and for the kernel, reading 4 KiB in single bytes is about a hundred
// times as much work as reading 4 KiB in one piece.
const outsideUnit = 32

// maxWrite is the largest number of bytes that the broker writes with one system call. The
// kernel stores the data of a larger write in separate pages, which a client can move into
// pipes with splice(2). These pages still use memory of the broker, but the kernel no
// longer counts them as unread data.
const maxWrite = 2 << 10

// responseUnit is the size of a part of a response, in bytes. Each full part of a response
// counts as one more request.
const responseUnit = 16 << 10

// namesUnit is the number of names that cost the broker as much as one request.
const namesUnit = 64

// descriptorsCost is the number of requests that a connection with passed file descriptors
// counts as. Each descriptor can be the last reference to a large file in memory, and the
// broker then needs the time to free this memory.
const descriptorsCost = 200

// While a write outside the poller (see socket) is blocked, the broker tries to send again
// and again. The time between two attempts begins with minWriteInterval and is at most
// maxWriteInterval.
const (
	minWriteInterval = 100 * time.Microsecond
	maxWriteInterval = 10 * time.Millisecond
)

// expiryDelay is the time that a write may take even if its answer has expired. It is long
// enough for a client that reads its answer at once.
const expiryDelay = 250 * time.Millisecond

// refusalTimeout is how long a refused client may take to send its request.
const refusalTimeout = time.Second

// A Session reads the requests of one connection and answers them one after the other.
type Session struct {
	conn    *conn
	drain   *drainState
	caller  Caller
	lines   *wire.Reader // nil before Run
	watcher *watcher     // nil unless the client is watched

	active    time.Time // when the session last read or waited, so that the clock is seldom read
	limitedAt time.Time // when the session last refused a request over the limit
	names     int       // number of names that were looked up since the last answer
	prepaid   int       // number of requests that the connect already counted against the limit
}

// A Handler contains the functions and limits with which a session reads and answers
// requests.
type Handler struct {
	// MaxLine is the maximum length of a request, in bytes, without the newline.
	MaxLine int
	// Grow provides the memory for request lines, as described at wire.NewReader. nil means
	// memory on the Go heap.
	Grow func(pending []byte, size int) ([]byte, error)
	// Limit limits the number of requests per second. nil means no limit.
	Limit *Limiter

	// Answer answers a request line. The line is valid until Answer returns. Answer must not
	// wait without calling Session.Gone or Session.AwaitInput.
	Answer func(line []byte) Reply
	// AnswerTooLong answers a request line of more than MaxLine bytes. The session ends the
	// connection after this reply.
	AnswerTooLong func() Reply
	// AnswerLimited answers a request over the limit. retryAfter is the number of seconds
	// after which the client can try again.
	AnswerLimited func(retryAfter int) Reply
}

// Caller returns the process that opened the connection.
func (s *Session) Caller() Caller { return s.caller }

// Draining returns a channel that is closed when the endpoint begins to drain. A Handler
// that waits for something should then return HangUp, because the client will send the
// request to the next broker.
func (s *Session) Draining() <-chan struct{} { return s.drain.draining }

// Gone returns a channel that is closed when the client ends the connection or shuts down
// one of its directions. A Handler must call Gone before it waits for anything. The channel is
// valid until the Handler returns.
func (s *Session) Gone() <-chan struct{} {
	if s.watcher == nil {
		s.watcher = startWatcher(s.conn)
	}
	return s.watcher.gone
}

// stopWatching must be called before the session waits for events itself. It reports whether
// the client was watched.
func (s *Session) stopWatching() (watched bool) {
	if s.watcher == nil {
		return false
	}
	s.watcher.end()
	s.watcher = nil
	return true
}

// HasEnded reports whether the client has ended the connection or shut down one of its
// directions.
func (s *Session) HasEnded() (ended bool) {
	s.conn.control(func(fd int) { ended = s.conn.clientEnded(fd) })
	return ended
}

// AwaitInput waits in a goroutine until the client sends another byte or the connection ends.
// The channel receives nil after a byte, or the error that ended the connection. AwaitInput
// has no timeout. Always call stop, which ends the goroutine and waits for its end. After
// stop, the session cannot read any more.
func (s *Session) AwaitInput() (input <-chan error, stop func()) {
	// setReadDeadline may remove the deadline that Drain has set. So the function that waits
	// for input must also wait for the channel of Draining.
	s.conn.deadline.set(time.Time{})
	s.conn.awaitsInput.Store(true)
	result, done := make(chan error, 1), make(chan struct{})
	go func() { // stop ends this goroutine
		defer close(done)
		result <- s.lines.Await()
	}()
	return result, func() {
		s.conn.deadline.change(longAgo)
		<-done
		s.conn.awaitsInput.Store(false)
	}
}

// After Detach, the memory of the last request line belongs to the function that called
// Detach. The session then reads requests into new memory from Handler.Grow.
func (s *Session) Detach() error { return s.lines.Detach() }

// Run answers requests until the client or the broker ends the connection.
func (s *Session) Run(h Handler) {
	s.lines = wire.NewReader(s.conn, h.MaxLine, h.Grow)
	s.active = time.Now()
	for {
		line, err := s.readLine()
		if err != nil {
			reply := s.answerReadError(h, err)
			s.chargeUnanswered(h.Limit, err)
			s.Write(reply)
			return
		}
		reply, pause := s.answer(h, line)
		if s.stopWatching() {
			s.active = time.Now() // the handler may have waited for a long time
		}
		if h.Limit != nil {
			// Count the response against the limit before the response is written. Otherwise
			// a client could close the connection before it has read the whole response, and
			// the response would not count.
			h.Limit.Reserve(reply.size()/responseUnit+s.names/namesUnit, s.active)
			s.names = 0
		}
		if !s.Write(reply) || reply.End || !s.pause(pause) {
			return
		}
	}
}

// cost returns how many requests a line of the given length counts as.
func (s *Session) cost(length int) int {
	unit := requestUnit
	if !s.conn.inPoller() {
		unit = outsideUnit
	}
	cost := 1 + length/unit - s.prepaid
	s.prepaid = 0
	return cost
}

// chargeUnanswered counts the bytes that were read since the beginning of a line against the
// limit, because the function answer will not count them. err is the error that ended the
// reading. limit can be nil.
func (s *Session) chargeUnanswered(limit *Limiter, err error) {
	if limit == nil {
		return
	}
	if s.conn.lineBytes > 0 {
		limit.Reserve(s.cost(s.conn.lineBytes), time.Now())
	}
	if errors.Is(err, errDescriptors) {
		limit.Reserve(descriptorsCost, time.Now())
	}
}

// CountNames counts names that were looked up for the current request. Every namesUnit names
// count as one more request.
func (s *Session) CountNames(n int) { s.names += n }

// errNoRequest means that the connection ends between two requests. The client closed the
// connection or sent nothing for too long, or the endpoint drains.
var errNoRequest = errors.New("no request")

func (s *Session) readLine() ([]byte, error) {
	s.conn.beginLine()
	s.drain.setReadDeadline(s.conn, s.active.Add(schema.IdleTimeout))
	if err := s.lines.Await(); err != nil {
		if errors.Is(err, errDescriptors) {
			return nil, err
		}
		return nil, errNoRequest
	}
	s.active = time.Now()
	s.drain.setReadDeadline(s.conn, s.active.Add(schema.LineTimeout))
	return s.lines.ReadLine()
}

// answerReadError returns the last reply of a session.
func (s *Session) answerReadError(h Handler, err error) (reply Reply) {
	switch {
	case errors.Is(err, wire.ErrTooLong):
		s.lines.Discard() // reads the rest of the line, so that the client can read the answer
		return h.AnswerTooLong()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Refuse(schema.CodeProtocolError, "the connection ended before the end of a line: each request must end with a newline")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Refuse(schema.CodeProtocolError, "the rest of the request line did not arrive within %v", schema.LineTimeout)
	case errors.Is(err, errDescriptors):
		return Refuse(schema.CodeProtocolError, "a client must not pass file descriptors")
	}
	return HangUp()
}

// answer answers one request and enforces the request limit.
//
// If the request is over the limit, answer refuses it and returns how long the session must
// stop reading. A connection gets at most one such refusal per second. If the connection
// got a refusal less than a second ago, answer instead waits until the limit allows the
// request, and then answers it.
func (s *Session) answer(h Handler, line []byte) (reply Reply, pause time.Duration) {
	if h.Limit != nil {
		cost := s.cost(len(line))
		wait := h.Limit.Reserve(cost, s.active)
		if wait > 0 && s.active.Sub(s.limitedAt) >= time.Second {
			s.limitedAt = s.active
			h.Limit.Return(cost)
			return h.AnswerLimited(int(math.Ceil(wait.Seconds()))), wait
		}
		if !s.pause(wait) {
			return HangUp(), 0
		}
	}
	if err := s.waitForRoom(); err != nil {
		return HangUp(), 0
	}
	return h.Answer(line), 0
}

// waitForRoom waits until the client has read most of its answers. The first bytes of the
// next answer then fit into the send buffer. Without this wait, the handler could look up a
// secret for an answer that the session can send only later. If a push or a clear was
// acknowledged in the meantime, the answer would contain an old secret.
func (s *Session) waitForRoom() error {
	var wait blockedWrite
	for !s.conn.isWritable() {
		if err := s.waitToSend(&wait, nil); err != nil {
			return err
		}
	}
	return nil
}

// pause waits for d and returns true. It reads nothing during this time, so the client
// causes almost no work. If the client disconnects or the endpoint drains, pause returns
// false at once.
func (s *Session) pause(d time.Duration) (completed bool) {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	defer func() {
		s.stopWatching()
		s.active = time.Now()
	}()
	select {
	case <-timer.C:
		return true
	case <-s.Gone():
		return false
	case <-s.Draining():
		return false
	}
}

// Write sends a reply. It returns false if the whole reply could not be sent within the
// write timeout.
func (s *Session) Write(reply Reply) bool {
	s.conn.resetWakes()
	err := s.writePieces(reply.Pieces, reply.Expired)
	if reply.Release != nil {
		reply.Release()
	}
	// If the next request were read first, the client could wake the broker without reading.
	s.conn.waitUntilWritable()
	return err == nil
}

// writePieces writes all pieces, with at most maxWrite bytes per system call.
func (s *Session) writePieces(pieces net.Buffers, expired func() bool) error {
	var wait blockedWrite
	sent := 0
	for len(pieces) > 0 {
		n, err := s.conn.send(firstBytes(pieces, maxWrite))
		switch err {
		case nil:
			pieces = dropBytes(pieces, n)
			wait.backoff.reset()
			if sent += n; sent >= responseUnit {
				sent = 0
				s.conn.resetWakes()
			}
		case unix.EAGAIN:
			if err := s.waitToSend(&wait, expired); err != nil {
				return err
			}
		default:
			return err
		}
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

// A blockedWrite is a write that waits for the client.
type blockedWrite struct {
	began   time.Time // when the write waited for the first time
	backoff backoff
}

// waitToSend waits until the broker should try to send again. It returns an error if the write
// timeout is over, or if the answer has expired. It checks both after each wait, so a client
// cannot make a write take longer by reading slowly.
func (s *Session) waitToSend(wait *blockedWrite, expired func() bool) error {
	if wait.began.IsZero() {
		wait.began = time.Now()
	}
	if s.conn.inPoller() {
		if err := s.conn.waitUntilWritable(); err != nil {
			return err
		}
	} else {
		wait.backoff.sleep(minWriteInterval, maxWriteInterval)
	}
	if s.drain.isWriteOver(wait.began) {
		return os.ErrDeadlineExceeded
	}
	if expired != nil && time.Since(wait.began) > expiryDelay && expired() {
		return errors.New("the answer has expired")
	}
	return nil
}

// WriteRefusal sends a reply to a client that may not use the socket, and then reads one
// request. Without this read, the client could get an error while it sends its request, and
// would not read the reply. The request counts against limit, which can be nil.
func (s *Session) WriteRefusal(reply Reply, limit *Limiter) {
	if !s.Write(reply) {
		return
	}
	s.conn.CloseWrite()
	if err := s.conn.leavePoller(); err != nil {
		return
	}
	s.drain.setReadDeadline(s.conn, time.Now().Add(refusalTimeout))
	_, err := wire.NewReader(s.conn, schema.MaxRequest, nil).ReadLine()
	s.chargeUnanswered(limit, err)
}
