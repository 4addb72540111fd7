package schema

// Code is the reason for a refusal, in a form for programs. The message in the same
// response is for people.
type Code string

// The codes of ErrorResponse and SecretError.
const (
	// CodeDenied means that the name is not on the project's allowlist. The response is
	// the same whether or not the secret exists.
	CodeDenied Code = "denied"
	// CodeNotFound means that secrets are loaded, but no secret has this name.
	CodeNotFound Code = "not_found"
	// CodeNotLoaded means that no secrets were pushed since the broker started or since
	// the last clear.
	CodeNotLoaded Code = "not_loaded"
	// CodeRateLimited means that the clients of the project sent too many requests, requested
	// too many names that were refused, or opened too many connections. On the admin socket,
	// CodeRateLimited means that there are too many connections. The client should retry after
	// retry_after_seconds.
	CodeRateLimited Code = "rate_limited"
	// CodeProtocolError means that the line is not a valid request for this socket, that the
	// line was incomplete or too slow, or that the client passed file descriptors.
	CodeProtocolError Code = "protocol_error"
	// CodeInvalidPayload means that a push is invalid, so the broker rejected the whole
	// push and kept its current secrets.
	CodeInvalidPayload Code = "invalid_payload"
	// CodeConflict means that another sidecar is connected and has already pushed, so the
	// broker refused this exclusive push and kept its current secrets.
	CodeConflict Code = "conflict"
	// CodePayloadTooLarge means that the line is longer than its limit, so the broker
	// closes the connection.
	CodePayloadTooLarge Code = "payload_too_large"
	// CodeManifestInvalid means that the manifest is invalid, or that the broker cannot
	// read the manifest file. For an invalid manifest, the message contains the violated
	// rule, and the number of the line, unless the whole file violates the rule.
	CodeManifestInvalid Code = "manifest_invalid"
	// CodeManifestNotFound means that the project's directory does not exist, or does not
	// contain a manifest.
	CodeManifestNotFound Code = "manifest_not_found"
	// CodeProjectUnknown means that no project with this name is registered. For a reload,
	// CodeProjectUnknown also means that the project is registered, but the broker cannot
	// serve it.
	CodeProjectUnknown Code = "project_unknown"
	// CodeProjectExists means that the broker already serves a project with this project_path
	// and the request has no replace, or that the name or a dev container ID in the request
	// belongs or belonged to a project at another path.
	CodeProjectExists Code = "project_exists"
	// CodePeerUnexpected means that the caller's uid is not allowed to use the project's
	// socket.
	CodePeerUnexpected Code = "peer_unexpected"
	// CodeUnauthorized means that the broker requires an admin token, and that the first
	// request of the connection did not contain this token, so the broker closes the
	// connection.
	CodeUnauthorized Code = "unauthorized"
	// CodeAuditUnavailable means that the broker could not write the audit event of this
	// request, but audit_required is set, so the broker sent no secret.
	CodeAuditUnavailable Code = "audit_unavailable"
	// CodeInternalError means that the broker failed, that the broker is stopping, or that
	// another request changed the project at the same time. The message contains the reason.
	CodeInternalError Code = "internal_error"
)

// Codes lists every code, for the generated schema and for tests.
var Codes = []Code{
	CodeDenied, CodeNotFound, CodeNotLoaded, CodeRateLimited, CodeProtocolError,
	CodeInvalidPayload, CodeConflict, CodePayloadTooLarge, CodeManifestInvalid, CodeManifestNotFound,
	CodeProjectUnknown, CodeProjectExists, CodePeerUnexpected, CodeUnauthorized,
	CodeAuditUnavailable, CodeInternalError,
}
