package schema

// GetRequest requests one secret.
type GetRequest struct {
	Op   Op         `json:"op"`
	Name SecretName `json:"name"`
	// WaitMS is the maximum time, in milliseconds, for which the broker waits for the secret
	// if the secret is allowed but missing. If wait_ms is absent or 0, the broker does not
	// wait. wait_ms can be at most MaxWait.
	WaitMS int64 `json:"wait_ms,omitzero"`
}

// GetResponse contains the secret. If the secret was pushed in secrets_b64, the response
// contains value_b64. If the secret was pushed in secrets, the response contains value.
type GetResponse struct {
	// OK is always true in this response.
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
	// Bundle is true if the secret is a bundle, so that value is the JSON text of the bundle.
	Bundle bool `json:"bundle,omitzero"`
}

// GetManyRequest requests several secrets from one snapshot.
type GetManyRequest struct {
	Op Op `json:"op"`
	// Names lists the requested secrets without duplicates. If names is absent, all
	// secrets on the allowlist are requested.
	Names []SecretName `json:"names,omitzero"`
	// WaitMS is the maximum time, in milliseconds, for which the broker waits until all
	// requested secrets that are allowed exist. If wait_ms is absent or 0, the broker does not
	// wait. wait_ms can be at most MaxWait.
	WaitMS int64 `json:"wait_ms,omitzero"`
}

// GetManyResponse contains the secrets that were found, and an error for each other
// requested name. Every requested name is either in secrets or in errors.
type GetManyResponse struct {
	// OK is always true in this response.
	OK bool `json:"ok"`
	// Generation is the number of the snapshot that contains all returned values, or 0 if no
	// secrets are loaded.
	Generation uint64                     `json:"generation"`
	Secrets    map[SecretName]SecretValue `json:"secrets"`
	Errors     map[SecretName]SecretError `json:"errors"`
}

// SecretError is the reason why the response of a get-many does not contain a requested
// secret. Code is denied, not_found, or not_loaded.
type SecretError struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// InfoRequest requests the project's allowlist and the content of its approved manifest.
type InfoRequest struct {
	Op Op `json:"op"`
}

// InfoResponse contains the sorted allowlist and the content of the approved manifest. It
// does not depend on the secrets that exist. A client must use an InfoResponse and not the
// manifest file in the project's tree, because the file can contain edits that the operator
// has not approved.
type InfoResponse struct {
	// OK is always true in this response.
	OK        bool         `json:"ok"`
	Project   ProjectName  `json:"project"`
	Allowlist []SecretName `json:"allowlist"`
	// SchemaVersion is the schema_version of the approved manifest.
	SchemaVersion int `json:"schema_version"`
	// Secrets describes how each secret is injected. If the manifest omits as, env, or mode,
	// the response contains the default value of this field.
	Secrets map[SecretName]*Injection `json:"secrets,omitempty"`
	// Helpers contains the helpers of the approved manifest. It is absent if the manifest
	// contains no helpers.
	Helpers *Helpers `json:"helpers,omitempty"`
}

// WatchRequest requests a line each time the secrets that the project can fetch change.
// The client must not send another request on the same connection.
type WatchRequest struct {
	Op Op `json:"op"`
}

// WatchResponse confirms that the watch has started. Each later line on the connection is a
// ChangedEvent. If the client sends another request, the last line is an ErrorResponse.
type WatchResponse struct {
	// OK is always true in this response.
	OK bool `json:"ok"`
	// Generation is the number of the snapshot at the start of the watch, or 0 if no secrets
	// are loaded. The first ChangedEvent lists the changes since the start of the watch.
	Generation uint64 `json:"generation"`
}

// WatchEventChanged is the value of the field event in every ChangedEvent.
const WatchEventChanged = "changed"

// ChangedEvent reports that the secrets that the project can fetch have changed.
type ChangedEvent struct {
	// Event is always "changed".
	Event string `json:"event"`
	// Generation is the number of the current snapshot, or 0 if no secrets are loaded.
	Generation uint64 `json:"generation"`
	// Names contains the sorted names of the allowed secrets that were added, removed, or
	// changed since the previous line of the watch. A secret also counts as added or removed
	// if a reload added its name to the allowlist or removed its name from the allowlist.
	Names []SecretName `json:"names"`
}

// ProjectPingResponse identifies the broker and the project of the socket.
type ProjectPingResponse struct {
	// OK is always true in this response.
	OK              bool        `json:"ok"`
	BrokerVersion   string      `json:"broker_version"`
	ProtocolVersion int         `json:"protocol_version"`
	InstanceID      string      `json:"instance_id"`
	Project         ProjectName `json:"project"`
}
