package schema

// Code is the reason for a refusal, for programs. The message next to the code is
// for people.
type Code string

// The codes of ErrorResponse and SecretError.
const (
	// CodeDenied: the name is not on the project's allowlist. The answer is the
	// same whether or not the secret exists.
	CodeDenied Code = "denied"
	// CodeNotFound: secrets are loaded, but there is no secret of this name.
	CodeNotFound Code = "not_found"
	// CodeNotLoaded: no secrets were pushed since the broker started or since the
	// last clear.
	CodeNotLoaded Code = "not_loaded"
	// CodeRateLimited: too many requests or connections. The client should retry
	// after retry_after_seconds.
	CodeRateLimited Code = "rate_limited"
	// CodeProtocolError: the line is not a valid request for this socket.
	CodeProtocolError Code = "protocol_error"
	// CodeInvalidPayload: a push is invalid, so the broker rejected all of it.
	CodeInvalidPayload Code = "invalid_payload"
	// CodePayloadTooLarge: the line is longer than the limit. The connection ends.
	CodePayloadTooLarge Code = "payload_too_large"
	// CodeManifestInvalid: the manifest is invalid. The message contains the rule
	// and the line.
	CodeManifestInvalid Code = "manifest_invalid"
	// CodeManifestNotFound: the project's directory does not contain a manifest.
	CodeManifestNotFound Code = "manifest_not_found"
	// CodeProjectUnknown: no project of this name is registered.
	CodeProjectUnknown Code = "project_unknown"
	// CodeProjectExists: a project of this name is already registered.
	CodeProjectExists Code = "project_exists"
	// CodePeerUnexpected: the caller's uid is not allowed to use this socket.
	CodePeerUnexpected Code = "peer_unexpected"
	// CodeUnauthorized: the admin token is missing or wrong.
	CodeUnauthorized Code = "unauthorized"
	// CodeAuditUnavailable: the broker could not write the audit event, and its
	// configuration requires the event (audit_required).
	CodeAuditUnavailable Code = "audit_unavailable"
	// CodeInternalError: the broker failed. The broker's log has the details.
	CodeInternalError Code = "internal_error"
)

// Codes lists every code, for the generated schema and for tests.
var Codes = []Code{
	CodeDenied, CodeNotFound, CodeNotLoaded, CodeRateLimited, CodeProtocolError,
	CodeInvalidPayload, CodePayloadTooLarge, CodeManifestInvalid, CodeManifestNotFound,
	CodeProjectUnknown, CodeProjectExists, CodePeerUnexpected, CodeUnauthorized,
	CodeAuditUnavailable, CodeInternalError,
}
