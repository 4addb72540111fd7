package schema

// Op is the name of an operation. The admin socket and the project sockets have different
// ops. Only ping exists on both kinds of socket.
type Op string

// The names of the ops. The first group contains the op of both kinds of socket, the
// second group the ops of the admin socket, and the third group the ops of project
// sockets.
const (
	OpPing Op = "ping"

	OpPush       Op = "push-creds"
	OpClear      Op = "clear-creds"
	OpRegister   Op = "register"
	OpUnregister Op = "unregister"
	OpReload     Op = "reload"
	OpInspect    Op = "inspect"
	OpList       Op = "list-creds"
	OpStatus     Op = "status"
	OpExplain    Op = "explain"
	OpEvents     Op = "events"
	OpAuth       Op = "auth"

	OpGet     Op = "get"
	OpGetMany Op = "get-many"
	OpInfo    Op = "info"
	OpWatch   Op = "watch"
)

// Request contains the only field that all requests have. The other fields depend on the
// op.
type Request struct {
	Op Op `json:"op"`
}

// OKResponse is the response of an op that returns no data.
type OKResponse struct {
	// OK is always true in this response.
	OK bool `json:"ok"`
}

// ErrorResponse is the response to a request that was refused. The message never contains the
// value of a secret. The message contains a text of the request only if the broker has
// validated or quoted this text, for example a text of the manifest.
type ErrorResponse struct {
	// OK is always false in this response.
	OK bool `json:"ok"`
	// Code is the reason for the refusal, in a form for programs.
	Code Code `json:"code"`
	// Message is the reason for the refusal, in a form for people.
	Message string `json:"message"`
	// RetryAfterSeconds is the number of seconds to wait before a retry. Only a response
	// with the code rate_limited has this field.
	RetryAfterSeconds int `json:"retry_after_seconds,omitzero"`
	// TokenFile is the path of the file that contains the admin token, on the host of the
	// broker. Only a response with the code unauthorized has this field.
	TokenFile string `json:"token_file,omitzero"`
}

// PingRequest requests the version and the instance ID of the broker.
type PingRequest struct {
	Op Op `json:"op"`
}
