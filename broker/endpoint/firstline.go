package endpoint

import (
	"bytes"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoFirstLine means that ReadFirstLine has read no line, because the client ended the
// connection before it sent a byte, or because the endpoint drains. The connection should then
// end without an answer.
var ErrNoFirstLine = errors.New("no first line")

// errInvalidFirstLine means that the client did not send a valid first line in time, passed file
// descriptors, or was evicted (see evictLocked).
var errInvalidFirstLine = errors.New("the first line is missing or invalid")

// ReadFirstLine reads the first line of a connection into buffer, and returns the line without
// its newline. shortest is the length of the shortest valid line, with its newline. The whole
// line must arrive within timeout. Every error except ErrNoFirstLine is a reason to refuse the
// client. The endpoint must require authorization (Config.MaxUnauthorized).
//
// ReadFirstLine leaves the bytes after a valid line in the socket, because the next request can
// contain secrets, which must be read into other memory. If the line is longer than shortest, some
// of the bytes after the line are in the buffer for a moment. ReadFirstLine then clears these bytes.
func (s *Session) ReadFirstLine(buffer []byte, shortest int, timeout time.Duration) ([]byte, error) {
	end := time.Now().Add(timeout)
	s.conn.beginLine()
	s.drain.setReadDeadline(s.conn, end)
	for n := 0; n < len(buffer); {
		// Check for an eviction only after the call of setReadDeadline, which can replace the
		// deadline that evictLocked has set.
		if s.admission.evicted.Load() {
			return nil, errInvalidFirstLine
		}
		read, size := s.conn.Read, shortest
		if n >= shortest { // the next bytes can contain the newline: do not read past it
			read, size = s.conn.readToNewline, len(buffer)
		}
		count, err := read(buffer[n:min(size, len(buffer))])
		if err != nil {
			return nil, s.firstLineError(err, n, end)
		}
		n += count
		switch bytes.IndexByte(buffer[n-count:n], '\n') {
		case -1:
		case count - 1:
			return buffer[:n-1], nil
		default: // the line is shorter than the shortest valid line
			return nil, errInvalidFirstLine
		}
	}
	return nil, errInvalidFirstLine // the line is too long
}

// readToNewline reads the data that have arrived, but not the data after the first newline.
// readToNewline needs two system calls, because it looks at the data before it reads the data.
func (c *conn) readToNewline(p []byte) (n int, err error) {
	err = c.await(func(fd int) error {
		peeked, err := peek(fd, p)
		if err != nil {
			return err
		}
		line := p[:peeked]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i+1]
		}
		clear(p[len(line):peeked]) // can contain secrets
		n, err = c.receive(fd, line)
		return err
	})
	return n, err
}

// peek copies data that have arrived, and leaves the data in the socket. n is 0 if no more data will
// arrive.
func peek(fd int, p []byte) (n int, err error) {
	for err = unix.EINTR; err == unix.EINTR; {
		n, _, err = unix.Recvfrom(fd, p, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	}
	return n, err
}

// firstLineError returns the error that ReadFirstLine must return if a read fails with err, after
// the client has sent n bytes. end is the time until which ReadFirstLine waits for the line.
func (s *Session) firstLineError(err error, n int, end time.Time) error {
	timedOut := errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case s.admission.evicted.Load(), timedOut && !time.Now().Before(end):
		return errInvalidFirstLine
	case timedOut: // the endpoint drains
		return ErrNoFirstLine
	case n > 0, errors.Is(err, errDescriptors):
		return errInvalidFirstLine
	}
	return ErrNoFirstLine
}

// Authorize makes the connection count as authorized. It returns false if the endpoint already
// has MaxConnections authorized connections.
func (s *Session) Authorize() bool { return s.admission.authorize() }

// WriteUnauthorized sends a reply to a client that was not authorized. Until refusalTimeout has
// passed, it then reads and discards the data that the client sends. Otherwise, the client could
// get an error while it sends requests, and would not read the reply.
//
// If the connections of too many other refused clients are still open, or if the connection was
// evicted, WriteUnauthorized does nothing.
func (s *Session) WriteUnauthorized(reply Reply) {
	if s.admission.evicted.Load() || !s.refusals.add(s) || !s.Write(reply) {
		return
	}
	s.refusedAt = time.Now()
	s.conn.CloseWrite()
	if s.conn.leavePoller() != nil {
		return
	}
	s.drain.setReadDeadline(s.conn, time.Now().Add(refusalTimeout))
	discarded := make([]byte, 16<<10)
	defer clear(discarded) // can contain secrets
	for !s.admission.evicted.Load() {
		if _, err := s.conn.Read(discarded); err != nil {
			break
		}
	}
	// If the client is still sending, the client now gets an error, and can then read the reply.
	s.conn.control(func(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RD) })
}
