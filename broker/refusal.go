package broker

import (
	"fmt"

	"github.com/keyhatch/keyhatch/schema"
)

// A refusal is an error with a code for the client.
type refusal struct {
	code    schema.Code
	message string
}

func (r *refusal) Error() string { return r.message }

// refuse returns a refusal. The arguments must be validated, or the broker's own.
func refuse(code schema.Code, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}
