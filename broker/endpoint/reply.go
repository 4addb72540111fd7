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
	Release func() // called after the reply was sent or could not be sent; may be nil
	End     bool   // close the connection after the reply
	// Expired reports whether the reply must no longer be sent, for example because its secrets
	// were replaced. If a write of the reply waits for the client for longer than expiryDelay,
	// the write calls Expired, and fails if the result is true. Expired may be nil.
	Expired func() bool
}

func (r Reply) size() (n int) {
	n = len(r.Line)
	for _, piece := range r.Pieces {
		n += len(piece)
	}
	return n
}

// pieces returns the bytes of the reply as a list of pieces.
func (r Reply) pieces() net.Buffers {
	if r.Line != nil {
		return net.Buffers{r.Line}
	}
	return r.Pieces
}

// HangUp returns a reply that ends the connection without an answer.
func HangUp() Reply { return Reply{End: true} }

// Answer returns a reply that contains a response, encoded as one line. The type of the response
// must be one of the response types of package schema.
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

// RefuseFor does the same as Refuse, but the response also contains the number of seconds after
// which the client can try again. If seconds is 0, the response does not contain the number.
func RefuseFor(seconds int, code schema.Code, format string, args ...any) Reply {
	return Answer(schema.ErrorResponse{Code: code, Message: fmt.Sprintf(format, args...), RetryAfterSeconds: seconds})
}

// RefuseMalformed returns an error response to a request line for which wire.Decode or wire.Check
// returned err. The response contains the text of err, which does not quote any part of the line.
func RefuseMalformed(op string, err error) Reply {
	return Refuse(schema.CodeProtocolError, "%s: %v", op, err)
}

// RefuseTooLong returns an error response to a request line of more than limit bytes. The reply
// ends the connection, because the broker does not know where the next request begins.
func RefuseTooLong(limit int) Reply {
	reply := Refuse(schema.CodePayloadTooLarge, "the request line is longer than %d bytes", limit)
	reply.End = true
	return reply
}

// RefuseUnknownOp returns an error response to a request with an unknown operation. The message
// lists the operations of the socket. It does not contain the unknown operation, because the
// broker has not validated this text.
func RefuseUnknownOp(socket string, operations []schema.Operation) Reply {
	names := make([]string, len(operations))
	for i, operation := range operations {
		names[i] = string(operation.Op)
	}
	return Refuse(schema.CodeProtocolError, "op must be one of the operations of the %s socket: %s", socket, strings.Join(names, ", "))
}
