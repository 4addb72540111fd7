package schema

// ExplainRequest asks whether a get would succeed.
type ExplainRequest struct {
	Op   Op          `json:"op"`
	Name ProjectName `json:"name"`
	// Secret is the name of the secret that the get would request.
	Secret SecretName `json:"secret"`
	// UID is the uid of the process that would send the get. If uid is absent, the broker
	// assumes the uid 0.
	UID uint32 `json:"uid,omitzero"`
}

// ExplainResponse contains the results of the checks that decide whether a get succeeds.
// The get would succeed if unserved, socket_mode_changed, too_many_connections,
// audit_unavailable, and retry_after_seconds are absent and all other fields are true. The
// explain request does not count against the limits of the project. The broker does not
// check whether a container can reach the socket, which also depends on the mode of the
// socket's directory and on the link with the project's name.
type ExplainResponse struct {
	// OK is always true in this response.
	OK bool `json:"ok"`
	// Unserved is true if the broker cannot serve the project. The problems in the response to
	// status contain the reason. If unserved is true, all other fields except ok are false or
	// absent.
	Unserved bool `json:"unserved,omitzero"`
	// SocketInPlace is false if the file of the project's socket was removed or replaced, and
	// the broker has not created it again yet.
	SocketInPlace bool `json:"socket_in_place"`
	// SocketModeChanged is true if the mode of the socket's file was changed, so that not every
	// process can connect.
	SocketModeChanged bool `json:"socket_mode_changed,omitzero"`
	// UIDAllowed is true if the uid may use the project's socket.
	UIDAllowed bool `json:"uid_allowed"`
	// SecretAllowed is true if the secret is on the allowlist of the approved manifest.
	SecretAllowed bool `json:"secret_allowed"`
	SecretsLoaded bool `json:"secrets_loaded"`
	// SecretPresent is true if a secret with the requested name is loaded, even if the name is
	// not on the allowlist.
	SecretPresent bool `json:"secret_present"`
	// TooManyConnections is true if the project's socket has so many connections that the broker
	// refuses another connection.
	TooManyConnections bool `json:"too_many_connections,omitzero"`
	// AuditUnavailable is true if the broker requires audit, and could not write the audit event
	// of this explain request.
	AuditUnavailable bool `json:"audit_unavailable,omitzero"`
	// RetryAfterSeconds is the number of seconds until the project is below its request limit
	// again. The field is absent if the project is below its request limit now.
	RetryAfterSeconds int `json:"retry_after_seconds,omitzero"`
}
