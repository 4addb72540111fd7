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
	// CodeRateLimited means that the client sent too many requests, requested too many
	// names that were refused, or opened too many connections. It should retry after
	// retry_after_seconds.
	CodeRateLimited Code = "rate_limited"
	// CodeProtocolError means that the line is not a valid request for this socket.
	CodeProtocolError Code = "protocol_error"
	// CodeInvalidPayload means that a push is invalid. The broker rejected the whole
	// push.
	CodeInvalidPayload Code = "invalid_payload"
	// CodeConflict means that another sidecar is connected and has already pushed. The
	// broker kept the secrets of that sidecar.
	CodeConflict Code = "conflict"
	// CodePayloadTooLarge means that the line is longer than the limit. The broker closes
	// the connection.
	CodePayloadTooLarge Code = "payload_too_large"
	// CodeManifestInvalid means that the manifest is invalid. The message contains the
	// violated rule and the line number in the manifest.
	CodeManifestInvalid Code = "manifest_invalid"
	// CodeManifestNotFound means that the project's directory does not contain a
	// manifest.
	CodeManifestNotFound Code = "manifest_not_found"
	// CodeProjectUnknown means that no project with this name is registered.
	CodeProjectUnknown Code = "project_unknown"
	// CodeProjectExists means that a project with this name is already registered.
	CodeProjectExists Code = "project_exists"
	// CodePeerUnexpected means that the caller's uid is not allowed to use this socket.
	CodePeerUnexpected Code = "peer_unexpected"
	// CodeUnauthorized means that the admin token is missing or wrong.
	CodeUnauthorized Code = "unauthorized"
	// CodeAuditUnavailable means that the broker could not write the audit event, and its
	// configuration requires the event (audit_required).
	CodeAuditUnavailable Code = "audit_unavailable"
	// CodeInternalError means that the broker failed. The broker's log contains the
	// details.
	CodeInternalError Code = "internal_error"
)

// Codes lists every code, for the generated schema and for tests.
var Codes = []Code{
	CodeDenied, CodeNotFound, CodeNotLoaded, CodeRateLimited, CodeProtocolError,
	CodeInvalidPayload, CodeConflict, CodePayloadTooLarge, CodeManifestInvalid, CodeManifestNotFound,
	CodeProjectUnknown, CodeProjectExists, CodePeerUnexpected, CodeUnauthorized,
	CodeAuditUnavailable, CodeInternalError,
}
