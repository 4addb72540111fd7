package schema

// Code says why a request was refused. Programs decide on the code; the
// message beside it is for people.
type Code string

// The codes of ErrorResponse and SecretError.
const (
	// CodeDenied: the name is not on the project's allowlist. Whether such a
	// secret exists makes no difference to the answer.
	CodeDenied Code = "denied"
	// CodeNotFound: secrets are loaded, and none has this name.
	CodeNotFound Code = "not_found"
	// CodeNotLoaded: nothing was pushed since the start or the last clear.
	CodeNotLoaded Code = "not_loaded"
	// CodeRateLimited: too many requests or connections; retry_after_seconds
	// says when to come back.
	CodeRateLimited Code = "rate_limited"
	// CodeProtocolError: the line is not a request this socket understands.
	CodeProtocolError Code = "protocol_error"
	// CodeInvalidPayload: a push breaks a rule; nothing of it was taken.
	CodeInvalidPayload Code = "invalid_payload"
	// CodePayloadTooLarge: the line is over its limit; the connection ends.
	CodePayloadTooLarge Code = "payload_too_large"
	// CodeManifestInvalid: the manifest breaks a rule, named with its line.
	CodeManifestInvalid Code = "manifest_invalid"
	// CodeManifestNotFound: no manifest where a project keeps it.
	CodeManifestNotFound Code = "manifest_not_found"
	// CodeProjectUnknown: no project of this name is registered.
	CodeProjectUnknown Code = "project_unknown"
	// CodeProjectExists: a project of this name is registered already.
	CodeProjectExists Code = "project_exists"
	// CodePeerUnexpected: the caller's uid may not use this socket.
	CodePeerUnexpected Code = "peer_unexpected"
	// CodeUnauthorized: the admin token is missing or wrong.
	CodeUnauthorized Code = "unauthorized"
	// CodeAuditUnavailable: the answer could not be recorded, and the daemon
	// was told to refuse in that case.
	CodeAuditUnavailable Code = "audit_unavailable"
	// CodeInternalError: a fault of the broker's own; its log says more.
	CodeInternalError Code = "internal_error"
)

// Codes lists every code, for the generated schema and for tests.
var Codes = []Code{
	CodeDenied, CodeNotFound, CodeNotLoaded, CodeRateLimited, CodeProtocolError,
	CodeInvalidPayload, CodePayloadTooLarge, CodeManifestInvalid, CodeManifestNotFound,
	CodeProjectUnknown, CodeProjectExists, CodePeerUnexpected, CodeUnauthorized,
	CodeAuditUnavailable, CodeInternalError,
}
