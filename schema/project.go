package schema

// GetRequest asks for one secret.
type GetRequest struct {
	Op   Op         `json:"op"`
	Name SecretName `json:"name"`
	// WaitMS is the maximum time to wait for a missing secret if the secret is
	// allowed, in milliseconds. The limit is MaxWait.
	WaitMS int64 `json:"wait_ms,omitzero"`
}

// GetResponse contains the secret: in value_b64 if it was pushed in secrets_b64,
// otherwise in value.
type GetResponse struct {
	// OK is true.
	OK bool `json:"ok"`
	SecretValue
}

// SecretValue is a secret in a response.
type SecretValue struct {
	// Value is the text of the secret. For a bundle, it is the compact JSON text of
	// an object.
	Value *string `json:"value,omitzero"`
	// ValueB64 is the value of a binary secret, in standard base64 with padding.
	ValueB64 []byte `json:"value_b64,omitzero"`
	// Bundle is true if the value is the JSON text of a bundle.
	Bundle bool `json:"bundle,omitzero"`
}

// GetManyRequest asks for several secrets from one snapshot.
type GetManyRequest struct {
	Op Op `json:"op"`
	// Names lists the requested secrets without duplicates. If it is absent, the
	// whole allowlist is requested.
	Names []SecretName `json:"names,omitzero"`
	// WaitMS is the maximum time to wait until every allowed secret among the names
	// exists, in milliseconds. The limit is MaxWait.
	WaitMS int64 `json:"wait_ms,omitzero"`
}

// GetManyResponse contains the secrets that were found, and an error for each other
// name. Every requested name is in exactly one of the two maps.
type GetManyResponse struct {
	// OK is true.
	OK bool `json:"ok"`
	// Generation is the number of the snapshot that contains all values. 0 means
	// that no secrets are loaded.
	Generation uint64                     `json:"generation"`
	Secrets    map[SecretName]SecretValue `json:"secrets"`
	Errors     map[SecretName]SecretError `json:"errors"`
}

// SecretError is the reason for a missing secret in the response of a get-many. The
// code is denied, not_found, or not_loaded.
type SecretError struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// InfoRequest asks for the project's allowlist and for its approved manifest.
type InfoRequest struct {
	Op Op `json:"op"`
}

// InfoResponse contains the sorted allowlist and the content of the approved
// manifest. It does not depend on the secrets that exist. A client must use this
// response and not the manifest file in the project's tree, because the operator did
// not approve later edits of that file.
type InfoResponse struct {
	// OK is true.
	OK        bool         `json:"ok"`
	Project   ProjectName  `json:"project"`
	Allowlist []SecretName `json:"allowlist"`
	// SchemaVersion is the schema_version of the manifest.
	SchemaVersion int `json:"schema_version"`
	// Secrets describes how each secret is injected. Default values are filled in.
	Secrets map[SecretName]*Injection `json:"secrets,omitempty"`
	// Helpers contains the helpers of the manifest. It is absent if the manifest
	// has none.
	Helpers *Helpers `json:"helpers,omitempty"`
}

// WatchRequest asks for an event each time the project's secrets change. The client
// must not send another request on the same connection.
type WatchRequest struct {
	Op Op `json:"op"`
}

// WatchResponse confirms the watch. ChangedEvents follow it.
type WatchResponse struct {
	// OK is true.
	OK bool `json:"ok"`
	// Generation is the number of the snapshot at the start of the watch. The first
	// ChangedEvent lists the changes since that snapshot. 0 means that no secrets
	// are loaded.
	Generation uint64 `json:"generation"`
}

// WatchEventChanged is the value of event in every ChangedEvent.
const WatchEventChanged = "changed"

// ChangedEvent reports that the secrets of the project have changed.
type ChangedEvent struct {
	// Event is "changed".
	Event string `json:"event"`
	// Generation is the number of the current snapshot. 0 means that no secrets are
	// loaded.
	Generation uint64 `json:"generation"`
	// Names lists the secrets that were added, removed, or changed since the
	// previous line, sorted. Each of them is on the allowlist, or was on the
	// allowlist before this change.
	Names []SecretName `json:"names"`
}

// ProjectPingResponse identifies the broker and the project of the socket.
type ProjectPingResponse struct {
	// OK is true.
	OK              bool        `json:"ok"`
	BrokerVersion   string      `json:"broker_version"`
	ProtocolVersion int         `json:"protocol_version"`
	InstanceID      string      `json:"instance_id"`
	Project         ProjectName `json:"project"`
}
