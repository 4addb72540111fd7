package schema

// Op is the name of an operation. The admin socket and the project sockets have
// different ops. Only ping exists on both.
type Op string

// The ops.
const (
	OpPing Op = "ping"

	OpPush       Op = "push-creds"
	OpClear      Op = "clear-creds"
	OpRegister   Op = "register"
	OpUnregister Op = "unregister"
	OpReload     Op = "reload"
	OpList       Op = "list-creds"
	OpStatus     Op = "status"

	OpGet     Op = "get"
	OpGetMany Op = "get-many"
	OpInfo    Op = "info"
	OpWatch   Op = "watch"
)

// Request contains the field that every request has. The other fields depend on
// the op.
type Request struct {
	Op Op `json:"op"`
}

// OKResponse is the response of an op that returns no data.
type OKResponse struct {
	// OK is true.
	OK bool `json:"ok"`
}

// ErrorResponse is the response to a request that was refused. The message contains
// the op and the reason. It never contains the value of a secret, or a part of the
// request that was not validated.
type ErrorResponse struct {
	// OK is false.
	OK bool `json:"ok"`
	// Code is the reason, for programs.
	Code Code `json:"code"`
	// Message is the reason, for people.
	Message string `json:"message"`
	// RetryAfterSeconds is the number of seconds to wait before a retry. Only
	// rate_limited has this field.
	RetryAfterSeconds int `json:"retry_after_seconds,omitzero"`
}

// PingRequest asks the broker for its version and its instance ID.
type PingRequest struct {
	Op Op `json:"op"`
}
