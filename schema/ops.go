package schema

// Op names an operation. The admin socket and the project sockets have ops of
// their own; ping is the one they share.
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

// Request is what every request has: its op. The other fields depend on it.
type Request struct {
	Op Op `json:"op"`
}

// OKResponse answers an op that has nothing more to say.
type OKResponse struct {
	// OK is true.
	OK bool `json:"ok"`
}

// ErrorResponse answers a request that was refused. The message names the op
// and the rule; it never holds a secret's value, and nothing of the request
// that was not validated first.
type ErrorResponse struct {
	// OK is false.
	OK bool `json:"ok"`
	// Code says why, for programs.
	Code Code `json:"code"`
	// Message says why, for people.
	Message string `json:"message"`
	// RetryAfterSeconds is when to try again, with rate_limited.
	RetryAfterSeconds int `json:"retry_after_seconds,omitzero"`
}

// PingRequest asks who is there.
type PingRequest struct {
	Op Op `json:"op"`
}
