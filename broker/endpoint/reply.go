package endpoint

import (
	"fmt"
	"net"
	"strings"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// A Reply is one response line in pieces, which are written together. The zero
// Reply writes nothing.
type Reply struct {
	Pieces  net.Buffers
	Release func() // called after the write, or its failure; may be nil
	End     bool   // close the connection after the reply
	// Expired reports whether a write that waits for the client must end. It may be nil.
	Expired func() bool
}

// size returns the number of bytes.
func (r Reply) size() (n int) {
	for _, piece := range r.Pieces {
		n += len(piece)
	}
	return n
}

// HangUp returns a reply that ends the connection without an answer.
func HangUp() Reply { return Reply{End: true} }

// Answer returns a reply that consists of one of schema's responses.
func Answer(response any) Reply {
	line, err := wire.Encode(response)
	if err != nil { // impossible for the types of schema
		return Refuse(schema.CodeInternalError, "cannot encode the response")
	}
	return Reply{Pieces: net.Buffers{line}}
}

// Refuse returns an error response. The arguments must be validated, or the
// broker's own.
func Refuse(code schema.Code, format string, args ...any) Reply {
	return RefuseFor(0, code, format, args...)
}

// RefuseFor is Refuse with the number of seconds after which the client can try
// again.
func RefuseFor(seconds int, code schema.Code, format string, args ...any) Reply {
	return Answer(schema.ErrorResponse{Code: code, Message: fmt.Sprintf(format, args...), RetryAfterSeconds: seconds})
}

// RefuseMalformed refuses a line because of an error of wire.Decode or wire.Check,
// which quotes nothing of the line.
func RefuseMalformed(op string, err error) Reply {
	return Refuse(schema.CodeProtocolError, "%s: %v", op, err)
}

// RefuseTooLong refuses a line of more than limit bytes. The connection ends,
// because the reader did not look for the end of the line.
func RefuseTooLong(limit int) Reply {
	reply := Refuse(schema.CodePayloadTooLarge, "the line is longer than %d bytes", limit)
	reply.End = true
	return reply
}

// RefuseUnknownOp lists the operations of a socket. It does not repeat the
// requested one, which is not validated.
func RefuseUnknownOp(socket string, operations []schema.Operation) Reply {
	names := make([]string, len(operations))
	for i, operation := range operations {
		names[i] = string(operation.Op)
	}
	return Refuse(schema.CodeProtocolError, "op must be one of the operations of the %s socket: %s", socket, strings.Join(names, ", "))
}
