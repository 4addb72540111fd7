package endpoint

import (
	"fmt"
	"net"
	"strings"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// A Reply is one response line. The line is either in Line, or consists of the pieces in
// Pieces. The zero Reply writes nothing.
type Reply struct {
	Line    []byte
	Pieces  net.Buffers
	Release func() // called after the write succeeded or failed; may be nil
	End     bool   // close the connection after the reply
	// Expired is called while a write waits for the client. If Expired returns true, the
	// write fails. Expired may be nil.
	Expired func() bool
}

// size returns the number of bytes in the reply.
func (r Reply) size() (n int) {
	n = len(r.Line)
	for _, piece := range r.Pieces {
		n += len(piece)
	}
	return n
}

// pieces returns the pieces of the reply.
func (r Reply) pieces() net.Buffers {
	if r.Line != nil {
		return net.Buffers{r.Line}
	}
	return r.Pieces
}

// HangUp returns a reply that ends the connection without an answer.
func HangUp() Reply { return Reply{End: true} }

// Answer returns a reply with a response. The type of response must be one of the response
// types of package schema.
func Answer(response any) Reply {
	line, err := wire.Encode(response)
	if err != nil { // cannot happen for the types of package schema
		return Refuse(schema.CodeInternalError, "cannot encode the response")
	}
	return Reply{Pieces: net.Buffers{line}}
}

// Refuse returns an error response. The message goes to the client, so each argument must
// be validated or must come from the broker itself.
func Refuse(code schema.Code, format string, args ...any) Reply {
	return RefuseFor(0, code, format, args...)
}

// RefuseFor does the same as Refuse. The response also contains the number of seconds after
// which the client can try again.
func RefuseFor(seconds int, code schema.Code, format string, args ...any) Reply {
	return Answer(schema.ErrorResponse{Code: code, Message: fmt.Sprintf(format, args...), RetryAfterSeconds: seconds})
}

// RefuseMalformed refuses a request line because wire.Decode or wire.Check returned an
// error. Such an error does not quote any part of the line.
func RefuseMalformed(op string, err error) Reply {
	return Refuse(schema.CodeProtocolError, "%s: %v", op, err)
}

// RefuseTooLong refuses a request line of more than limit bytes. The reply ends the
// connection, because the broker does not know where the next request begins.
func RefuseTooLong(limit int) Reply {
	reply := Refuse(schema.CodePayloadTooLarge, "the request line is longer than %d bytes", limit)
	reply.End = true
	return reply
}

// RefuseUnknownOp refuses a request with an unknown operation, and lists the operations of
// the socket. The message does not contain the unknown operation, which is not validated.
func RefuseUnknownOp(socket string, operations []schema.Operation) Reply {
	names := make([]string, len(operations))
	for i, operation := range operations {
		names[i] = string(operation.Op)
	}
	return Refuse(schema.CodeProtocolError, "op must be one of the operations of the %s socket: %s", socket, strings.Join(names, ", "))
}
