package endpoint

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// requestUnit is the size of a part of a request, in bytes. Each full part of a request
// counts as one more request, because long requests cost the broker more. For example, the
// broker needs 0.8 ms to decode 4 KiB that contain many names of fields.
const requestUnit = 512

// outsideUnit is the size of a part of a request on a connection outside the poller (see
// socket). It is smaller than requestUnit, so that these bytes cost more. The client may send
// them one at a time, and for the kernel, reading 4 KiB in single bytes is about a hundred
// times as much work as reading 4 KiB in one piece.
const outsideUnit = 32

// namesUnit is the number of names that cost the broker as much as one request.
const namesUnit = 64

// descriptorsCost is the number of requests that a connection with passed file descriptors
// counts as. Each descriptor can be the last reference to a large file in memory, so
// closing the descriptor can take a long time.
const descriptorsCost = 200

// parkDelay is how long a session waits for the next request before it is parked (see
// Handler.Park). The time is so long that a busy session is not parked.
const parkDelay = 100 * time.Millisecond

// refusalTimeout is how long a refused client may take to send its request.
const refusalTimeout = time.Second

// unreadRefusalTimeout is how long the connection of a client that was not authorized stays open
// if the client does not read the refusal.
const unreadRefusalTimeout = 5 * time.Second

// maxRefusals is the largest number of refused clients whose connections are open at the same
// time, if the endpoint needs no authorization. Refused clients that do not read their replies could otherwise use up the connections
// of the clients that may use the socket.
const maxRefusals = 16

// refusals contains the sessions of an endpoint whose clients were refused.
type refusals struct {
	max      int                   // the largest number of sessions
	mu       sync.Mutex            // no other mutex is locked while mu is locked
	sessions map[*Session]struct{} // guarded by mu
}

// add adds a session. It returns false if there are already max sessions.
func (r *refusals) add(s *Session) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sessions) >= r.max {
		return false
	}
	r.sessions[s] = struct{}{}
	return true
}

func (r *refusals) remove(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, s)
}

// A Session reads the requests of one connection and answers them one after the other.
type Session struct {
	conn    *conn
	drain   *drainState
	caller  Caller
	out     sender
	watcher *watcher // nil unless the client is watched

	canPark bool                                           // the endpoint can park the session
	parkAt  time.Time                                      // when the session should be parked if there is no request; zero if never
	maxLine int                                            // as in Handler
	grow    func(pending []byte, size int) ([]byte, error) // as in Handler
	work    *workspace                                     // can be nil while the session waits for the next request
	unread  int                                            // number of bytes in work.lines that belong to no returned line
	canWait bool                                           // Read may wait for data
	fd      int                                            // the file descriptor from which Read reads if it must not wait
	tryRead func(fd int) error                             // s.readNow, stored here because it would be allocated for each call

	refusedAt time.Time  // when WriteUnauthorized sent a refusal; zero if it did not
	refusals  *refusals  // nil for a session of Connect
	admission *admission // nil if the client needs no authorization

	// parked means that Run has returned only because the session waits for its next request.
	parked bool

	active    time.Time // roughly when the session last read a request; not exact, so that the clock is seldom read
	limitedAt time.Time // when the session last refused a request over the limit
	names     int       // number of names that were looked up since the last answer
	prepaid   int       // number of requests that the connect already counted against the limit
}

func newSession(c *conn, drain *drainState, prepaid int) *Session {
	return &Session{conn: c, drain: drain, out: sender{conn: c, drain: drain}, prepaid: prepaid}
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
	// Batch allows the session to send the answers to several requests with one system call,
	// after the last of these requests was answered.
	Batch bool

	// Park allows Run to return if the client sends no request for parkDelay. The endpoint calls
	// Config.Serve again when there may be a request. In the meantime, the connection needs less
	// memory, because its goroutine has a small stack. The sessions of Connect are not parked.
	Park bool

	// Answer answers a request line. The line is valid until Answer returns. Before Answer
	// waits for anything, it must call Session.Gone or Session.AwaitInput. Both functions first
	// send the answers to all previous requests. Otherwise these answers could contain replaced
	// secrets when they are sent.
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

// Gone returns a channel that is closed when the client ends the connection or shuts down one
// of its directions. The channel is valid until Handler.Answer returns. Before Gone returns,
// it sends the answers to all previous requests.
func (s *Session) Gone() <-chan struct{} {
	s.Flush()
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
//
// Before AwaitInput starts the goroutine, it sends the answers to all previous requests.
func (s *Session) AwaitInput() (input <-chan error, stop func()) {
	s.Flush()
	// This may remove the deadline that Drain has set. So the function that waits for input must
	// also wait for the channel of Draining.
	s.conn.deadline.set(time.Time{})
	s.conn.awaitsInput = true
	result, done := make(chan error, 1), make(chan struct{})
	go func() { // stop ends this goroutine
		defer close(done)
		result <- s.work.lines.Await()
	}()
	return result, func() {
		s.conn.deadline.change(longAgo)
		<-done
		s.conn.awaitsInput = false
	}
}

// Flush sends the answers to all previous requests. A Handler must call Flush before work that
// takes longer than the answer to a get, because these answers could otherwise contain old
// secrets when they are sent.
func (s *Session) Flush() { s.out.flush() } // if this fails, the next write also fails

// After Detach, the memory of the last request line belongs to the function that called
// Detach. The session then reads requests into new memory from Handler.Grow.
func (s *Session) Detach() error { return s.work.lines.Detach() }

// Run answers requests until the client or the broker ends the connection, or until the session
// is parked.
func (s *Session) Run(h Handler) {
	s.maxLine, s.grow, s.tryRead = h.MaxLine, h.Grow, s.readNow
	began := time.Now()
	if s.active.IsZero() {
		s.active = began
	}
	s.parkAt = time.Time{}
	if h.Park && s.canPark {
		s.parkAt = began.Add(parkDelay)
	}
	for {
		line, err := s.readLine()
		if s.parked {
			return
		}
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
		if !s.send(reply, h.Batch) || reply.End || !s.pause(pause) {
			return
		}
	}
}

// send sends a reply, together with the replies to other requests if possible.
func (s *Session) send(reply Reply, inBatch bool) bool {
	if inBatch && !reply.End {
		return s.out.add(&s.work.batch, reply)
	}
	return s.out.write(reply)
}

// cost returns how many requests a line of the given length counts as, without the
// requests that the connect has already counted.
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
// connection or sent nothing for too long, or the endpoint drains. awaitRequest also
// returns errNoRequest if it parks the session.
var errNoRequest = errors.New("no request")

// readLine returns the next request. If readLine must wait for it, it first sends the answers to
// all previous requests.
func (s *Session) readLine() ([]byte, error) {
	s.conn.beginLine()
	if s.unread == 0 {
		if !s.out.flush() {
			return nil, errNoRequest
		}
		if err := s.awaitRequest(); err != nil {
			return nil, err
		}
	}
	if s.out.batch == nil {
		s.active = time.Now()
		if !s.parkAt.IsZero() {
			s.parkAt = s.active.Add(parkDelay)
		}
	}
	s.drain.setReadDeadline(s.conn, s.active.Add(schema.LineTimeout))
	line, err := s.work.lines.ReadLine()
	if err == nil {
		s.unread -= len(line) + 1
	}
	return line, err
}

// awaitRequest waits for the beginning of a request. If the session should be parked,
// awaitRequest sets s.parked and returns an error.
func (s *Session) awaitRequest() error {
	end := s.active.Add(schema.IdleTimeout)
	for {
		mayPark := !s.parkAt.IsZero() && s.conn.inPoller() && s.parkAt.Before(end)
		if mayPark {
			s.drain.setReadDeadline(s.conn, s.parkAt)
		} else {
			s.drain.setReadDeadline(s.conn, end)
		}
		err := s.conn.await(s.tryRead)
		switch {
		case err == nil || errors.Is(err, errDescriptors):
			return err
		case !mayPark || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(s.drain.limit(end)):
			return errNoRequest
		case s.conn.inPoller():
			s.drain.setReadDeadline(s.conn, end)
			s.conn.deadline.startTimer() // here, because awaitEvent has only a small stack
			s.parked = true
			return errNoRequest
		}
	}
}

// awaitEvent waits for a parked session until there may be a request, or until its connection
// should end. It runs in a goroutine with a small stack, so it must not call large functions.
func (s *Session) awaitEvent() {
	s.conn.awaitEvent()
	s.parked = false
}

// readNow reads the beginning of a request without waiting. After an error, for example EAGAIN
// if there are no data, the session releases its workspace, so that an idle session needs less
// memory. Only a session with its own memory for request lines (Handler.Grow) keeps its
// workspace.
func (s *Session) readNow(fd int) error {
	if s.work == nil {
		s.work = newWorkspace((*input)(s), s.maxLine, s.grow)
	}
	s.fd, s.canWait = fd, false
	err := s.work.lines.Await()
	s.canWait = true
	if err != nil && s.grow == nil {
		s.work.release()
		s.work = nil
	}
	return err
}

// An input is a Session from which a workspace reads.
type input Session

// Read reads data. Before it waits for data, it sends the answers to all previous requests.
func (s *input) Read(p []byte) (n int, err error) {
	if !s.canWait {
		n, err = s.conn.receive(s.fd, p)
	} else if s.conn.awaitsInput || s.out.flush() {
		n, err = s.conn.Read(p)
	} else {
		err = net.ErrClosed
	}
	s.unread += n
	return n, err
}

// answerReadError returns the last reply of a session that ends because reading a request
// failed with err.
func (s *Session) answerReadError(h Handler, err error) (reply Reply) {
	switch {
	case errors.Is(err, wire.ErrTooLong):
		s.work.lines.Discard() // reads the rest of the line, so that the client can read the answer
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
			// The refused request does not count as one request. But the broker has read it,
			// so each full part of a long request still counts.
			h.Limit.Return(1)
			return h.AnswerLimited(int(math.Ceil(wait.Seconds()))), wait
		}
		if !s.pause(wait) {
			return HangUp(), 0
		}
	}
	if err := s.out.waitForRoom(); err != nil {
		return HangUp(), 0
	}
	return h.Answer(line), 0
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

// Write sends a reply, after the replies to all previous requests. It returns false if the
// whole reply could not be sent, for example because the client did not read it within the
// write timeout.
func (s *Session) Write(reply Reply) bool { return s.out.write(reply) }

// HasRoom reports whether the client has read so many of its answers that Write can send size
// bytes without waiting. HasRoom also returns true if the connection has ended.
func (s *Session) HasRoom(size int) bool { return s.conn.hasRoom(size) }

// WriteRefusal sends a reply to a client that may not use the socket, and then reads one
// request. Without this read, the client could get an error while it sends its request, and
// would not read the reply. The request counts against limit, which can be nil.
//
// If the connections of maxRefusals other refused clients are still open, WriteRefusal
// does nothing.
func (s *Session) WriteRefusal(reply Reply, limit *Limiter) {
	if s.refusals != nil && !s.refusals.add(s) || !s.Write(reply) {
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
