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

// outsideUnit is the size of a part of a request on a connection outside the poller (see socket).
// It is smaller than requestUnit, because the client may send single bytes. For the kernel,
// reading 4 KiB in single bytes is about a hundred times as much work as reading 4 KiB in one
// piece.
const outsideUnit = 32

// namesUnit is the number of names that count as one more request (see Session.CountNames).
// Looking up so many names costs the broker about as much as one request.
const namesUnit = 64

// descriptorsCost is the number of requests that a connection with passed file descriptors counts
// as. The number is large, because each file descriptor can be the last reference to a large file
// in memory, and closing it can take a long time.
const descriptorsCost = 200

// parkDelay is how long a session waits for the next request before it is parked (see
// Handler.Park). It is long enough that a session with frequent requests is not parked.
const parkDelay = 100 * time.Millisecond

// refusalTimeout is how long the broker still reads from a refused client, so that the client can
// send its request and read the refusal.
const refusalTimeout = time.Second

// unreadRefusalTimeout is how long the connection of a client that was not authorized stays open
// if the client does not read the refusal.
const unreadRefusalTimeout = 5 * time.Second

// maxRefusals is the largest number of refused clients whose connections an endpoint keeps open
// at the same time. It applies to endpoints whose clients need no authorization. Without this
// limit, refused clients that do not read their replies could use up the connections of the
// clients that may use the socket.
const maxRefusals = 16

// refusals contains the sessions of one endpoint that refuse their clients and are still open.
type refusals struct {
	max      int                   // the largest number of sessions in the map
	mu       sync.Mutex            // lock no other mutex while mu is locked
	sessions map[*Session]struct{} // nil before the first refusal; guarded by mu
}

// add adds a session. It returns false if there are already max sessions.
func (r *refusals) add(s *Session) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sessions) >= r.max {
		return false
	}
	if r.sessions == nil {
		r.sessions = map[*Session]struct{}{}
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

	canPark bool                                           // the session belongs to an Endpoint, which can park it; false for Connect
	parkAt  time.Time                                      // when the session should be parked if there is no request; zero if never
	maxLine int                                            // as in Handler
	grow    func(pending []byte, size int) ([]byte, error) // as in Handler
	work    *workspace                                     // can be nil while the session waits for the next request
	unread  int                                            // number of bytes in work.lines that belong to no returned line
	canWait bool                                           // input.Read waits if there are no data
	fd      int                                            // the file descriptor from which input.Read reads while canWait is false
	tryRead func(fd int) error                             // s.readNow, stored here so that awaitRequest allocates no memory

	refusedAt time.Time  // when WriteUnauthorized sent a refusal; zero if it did not
	refusals  *refusals  // nil for a session of Connect
	admission *admission // nil if the client needs no authorization

	// parked means that Run has returned only because the session waits for its next request.
	parked bool

	active    time.Time // roughly when the session last read a request; not exact, so that the session need not read the clock for each request
	limitedAt time.Time // when the session last refused a request over the limit
	names     int       // number of names that CountNames has counted for the current request
	prepaid   int       // 1 until the first request if payForConnection has counted the connection, otherwise 0
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
	// Batch allows the session to send the replies to several requests with one system call,
	// after Answer has returned the last of these replies.
	Batch bool

	// Park allows Run to return if the client sends no request for parkDelay. The session is then
	// parked: its connection stays open, and the endpoint calls Config.Serve again when there may
	// be a request. A parked session needs less memory, because its goroutine has a small stack.
	// The sessions of Connect are never parked.
	Park bool

	// Answer returns the reply to a request line. The line is valid until Answer returns. Before
	// Answer waits for anything, it must call Session.Gone, Session.AwaitInput, or Session.Flush.
	// These functions send the answers to all previous requests. If the session sent these
	// answers only after the wait, they could contain replaced secrets.
	Answer func(line []byte) Reply
	// AnswerTooLong returns the reply to a request line of more than MaxLine bytes. The session
	// ends the connection after this reply.
	AnswerTooLong func() Reply
	// AnswerLimited returns the reply to a request over the limit. retryAfter is the number of
	// seconds after which the client can try again. If Limit is nil, AnswerLimited is not called.
	AnswerLimited func(retryAfter int) Reply
}

// Caller returns the process that opened the connection.
func (s *Session) Caller() Caller { return s.caller }

// Draining returns a channel that is closed when the endpoint begins to drain. If Handler.Answer
// is waiting for something at this time, it should return HangUp. The client can then send the
// request to the next broker.
func (s *Session) Draining() <-chan struct{} { return s.drain.draining() }

// Gone returns a channel that is closed when the client closes the connection or shuts down one
// of its directions. Use the channel only until Handler.Answer returns. Before Gone returns, it
// sends the answers to all previous requests.
func (s *Session) Gone() <-chan struct{} {
	s.Flush()
	if s.watcher == nil {
		s.watcher = startWatcher(s.conn)
	}
	return s.watcher.gone
}

// stopWatching ends the watcher of the client. It must be called before the session itself waits
// for events. It returns false if there was no watcher.
func (s *Session) stopWatching() (watched bool) {
	if s.watcher == nil {
		return false
	}
	s.watcher.end()
	s.watcher = nil
	return true
}

// HasEnded reports whether the client has closed the connection or shut down one of its
// directions.
func (s *Session) HasEnded() (ended bool) {
	s.conn.control(func(fd int) { ended = s.conn.clientEnded(fd) })
	return ended
}

// AwaitInput starts a goroutine that waits until the client sends another byte or the connection
// ends. The channel input then receives nil for a byte, or the error with which the wait ended.
// AwaitInput has no timeout. Always call stop, which ends the goroutine and waits for its end.
// After stop, Handler.Answer must return a reply that ends the connection, because the deadline
// for reading has passed.
//
// Before AwaitInput starts the goroutine, it sends the answers to all previous requests.
func (s *Session) AwaitInput() (input <-chan error, stop func()) {
	s.Flush()
	// Remove the deadline, even if Drain has set it. So a function that waits for input must also
	// wait for the channel that Draining returns.
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

// Flush sends the answers to all previous requests. Handler.Answer must call Flush before work
// that takes longer than the answer to a get. If the session sent the previous answers only after
// this work, they could contain old secrets.
func (s *Session) Flush() { s.out.flush() } // ignore a failure, because the next write then fails too

// Detach gives the memory of the last request line to the calling function. The session then
// reads requests into new memory from Handler.Grow. If Handler.Grow fails, Detach returns its
// error, and the memory still belongs to the session.
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
			reply := s.answerReadError(&h, err)
			s.chargeUnanswered(h.Limit, err)
			s.Write(reply)
			return
		}
		reply, pause := s.answer(&h, line)
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

// send sends a reply. If inBatch is true, send can add the reply to the batch, and send it later
// together with other replies. send returns false if a reply could not be sent.
func (s *Session) send(reply Reply, inBatch bool) bool {
	if inBatch && !reply.End {
		return s.out.add(&s.work.batch, reply)
	}
	return s.out.write(reply)
}

// cost returns how many requests a line of the given length counts as. The first call on a
// connection does not include the request that payForConnection has already counted.
func (s *Session) cost(length int) int {
	unit := requestUnit
	if !s.conn.inPoller() {
		unit = outsideUnit
	}
	cost := 1 + length/unit - s.prepaid
	s.prepaid = 0
	return cost
}

// chargeUnanswered counts the bytes of a line that the function answer does not count, for example
// because the line is too long. If reading the line ended with errDescriptors, chargeUnanswered also
// counts descriptorsCost. limit can be nil.
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

// errNoRequest means that the session has read no byte of the next request. For example, the
// client has closed the connection or sent nothing for too long, or the endpoint drains.
// awaitRequest also returns errNoRequest if it parks the session.
var errNoRequest = errors.New("no request")

// readLine returns the next request. If the session has not read any byte of this request yet,
// readLine first sends the answers to all previous requests.
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
	line, err := s.work.lines.ReadLine()
	if err == nil {
		s.unread -= len(line) + 1
	}
	return line, err
}

// awaitRequest waits for the first bytes of a request. If the session should be parked,
// awaitRequest sets s.parked and returns errNoRequest.
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
			s.conn.deadline.startTimer() // call startTimer here, because awaitEvent runs on a small stack
			s.parked = true
			return errNoRequest
		}
	}
}

// awaitEvent waits until a parked session may have a request, or until its connection should end.
// It must not call functions that need much stack, because the small stack of its goroutine would
// then grow.
func (s *Session) awaitEvent() {
	s.conn.awaitEvent()
	s.parked = false
}

// readNow reads the first bytes of a request without waiting. After an error, for example EAGAIN
// if there are no data, readNow releases the session's workspace, so that an idle session needs
// less memory. But a session with Handler.Grow keeps its workspace.
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

// An input is a Session whose Read method reads from its connection. The workspace of the session
// reads request lines from the input.
type input Session

// Read reads data from the connection. If s.canWait is true, Read can wait for the rest of a line
// or for the input of AwaitInput. Before Read waits for the rest of a line, it sends the answers
// to all previous requests, and sets the deadline of the line.
func (s *input) Read(p []byte) (n int, err error) {
	switch {
	case !s.canWait:
		n, err = s.conn.receive(s.fd, p)
	case s.conn.awaitsInput:
		n, err = s.conn.Read(p)
	case s.out.flush():
		s.drain.setReadDeadline(s.conn, s.active.Add(schema.LineTimeout))
		n, err = s.conn.Read(p)
	default:
		err = net.ErrClosed
	}
	s.unread += n
	return n, err
}

// answerReadError returns the last reply of a session that ends because reading a request
// failed with err.
func (s *Session) answerReadError(h *Handler, err error) (reply Reply) {
	switch {
	case errors.Is(err, wire.ErrTooLong):
		s.work.lines.Discard() // reads the rest of the line, because some clients read an answer only after sending the line
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
// If the request is over the limit, answer returns a refusal, and in pause how long the session
// must wait before it reads the next request. A connection gets at most one such refusal per
// second. If the connection got a refusal less than a second ago, answer instead waits until the
// limit allows the request, and then answers it. If the client ends the connection or the
// endpoint drains during this wait, the reply is HangUp.
func (s *Session) answer(h *Handler, line []byte) (reply Reply, pause time.Duration) {
	if h.Limit != nil {
		cost := s.cost(len(line))
		wait := h.Limit.Reserve(cost, s.active)
		if wait > 0 && s.active.Sub(s.limitedAt) >= time.Second {
			s.limitedAt = s.active
			// Do not count the refused request itself. But the broker has read the request, so
			// each full part of a long request still counts (see requestUnit).
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

// pause waits for d and returns true. The session reads nothing during this time, so the client
// causes almost no work. If the client closes the connection or shuts down one of its directions,
// or if the endpoint drains, pause returns false at once.
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

// HasRoom reports whether Write can send size bytes without waiting, because the client has read
// most of its answers. HasRoom also returns true if the connection has ended.
func (s *Session) HasRoom(size int) bool { return s.conn.hasRoom(size) }

// WriteRefusal sends a reply to a client that may not use the socket. It then reads one request,
// but waits at most refusalTimeout for it. Without this read, the client could get an error while
// it sends its request, and would not read the reply. The request counts against limit, which can
// be nil.
//
// If the connections of too many other refused clients are still open (see maxRefusals),
// WriteRefusal does nothing.
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
