package broker

import (
	"fmt"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// malformed refuses a line for an error of wire.Decode's, which quotes nothing.
func malformed(op string, err error) reply {
	return refuse(schema.CodeProtocolError, "%s: %v", op, err)
}

// tooLong refuses a line whose end was not looked for; the connection ends.
func tooLong(limit int) reply {
	r := refuse(schema.CodePayloadTooLarge, "the line is over %d bytes", limit)
	r.end = true
	return r
}

// unknownOp says which ops a socket has, never which one was asked for.
func unknownOp(socket string, operations []schema.Operation) reply {
	names := make([]string, len(operations))
	for i, operation := range operations {
		names[i] = string(operation.Op)
	}
	return refuse(schema.CodeProtocolError, "%s", fmt.Sprintf("op must be one of the %s socket's: %s", socket, strings.Join(names, ", ")))
}
