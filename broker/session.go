package broker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// A session is one connection. Its requests are answered one after the other.
type session struct {
	conn     *net.UnixConn
	endpoint *endpoint
	caller   caller
	lines    *wire.Reader
}

// A reply is one response line in pieces, written together.
type reply struct {
	parts net.Buffers
	done  func() // releases what parts point into; may be nil
	end   bool   // the connection ends behind it
}

// hangUp ends a connection without an answer.
var hangUp = reply{end: true}

// answer is a reply made of one of schema's responses.
func answer(response any) reply {
	line, err := wire.Encode(response)
	if err != nil { // our own types can be encoded
		return refuse(schema.CodeInternalError, "the answer cannot be encoded")
	}
	return reply{parts: net.Buffers{line}}
}

// refuse is a reply that says why not. The arguments must be validated or the
// broker's own.
func refuse(code schema.Code, format string, args ...any) reply {
	return refuseAfter(code, 0, format, args...)
}

func refuseAfter(code schema.Code, seconds int, format string, args ...any) reply {
	return answer(schema.ErrorResponse{Code: code, Message: fmt.Sprintf(format, args...), RetryAfterSeconds: seconds})
}

// run answers requests until the connection ends. The line that handle gets is
// wiped when it returns, unless handle detached it.
func (s *session) run(handle func(line []byte) reply) {
	for {
		s.endpoint.idleDeadline(s.conn)
		if s.lines.Await() != nil {
			return // closed, idle, or drained
		}
		s.conn.SetReadDeadline(time.Now().Add(schema.LineTimeout))
		line, err := s.lines.ReadLine()
		var r reply
		switch {
		case err == nil:
			r = handle(line)
		case errors.Is(err, wire.ErrTooLong):
			s.lines.Discard() // within the line's time; the connection ends anyway
			r = handle(nil)
			r.end = true
		case errors.Is(err, io.ErrUnexpectedEOF):
			r = refuse(schema.CodeProtocolError, "the connection ended within a line: a request ends with a newline")
			r.end = true
		case errors.Is(err, os.ErrDeadlineExceeded):
			r = refuse(schema.CodeProtocolError, "the line was not complete within %v", schema.LineTimeout)
			r.end = true
		default:
			return
		}
		if !s.write(r) || r.end {
			return
		}
	}
}

// write sends a reply and reports whether all of it was taken in time.
func (s *session) write(r reply) bool {
	s.conn.SetWriteDeadline(time.Now().Add(schema.WriteTimeout))
	_, err := r.parts.WriteTo(s.conn)
	if r.done != nil {
		r.done()
	}
	return err == nil
}
