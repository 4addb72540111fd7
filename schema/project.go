package schema

// GetRequest asks for one secret.
type GetRequest struct {
	Op   Op         `json:"op"`
	Name SecretName `json:"name"`
	// WaitMS is how long to wait, in milliseconds, for an allowed secret that
	// is not there yet; at most MaxWait.
	WaitMS int64 `json:"wait_ms,omitzero"`
}

// GetResponse holds the secret: value, or value_b64 where it was pushed in
// secrets_b64.
type GetResponse struct {
	// OK is true.
	OK bool `json:"ok"`
	SecretValue
}

// SecretValue is a secret as it is answered.
type SecretValue struct {
	// Value is the text. A bundle's is the compact JSON text of its object.
	Value *string `json:"value,omitzero"`
	// ValueB64 is a binary secret in standard base64.
	ValueB64 []byte `json:"value_b64,omitzero"`
	// Bundle says that Value is a bundle's JSON text.
	Bundle bool `json:"bundle,omitzero"`
}

// GetManyRequest asks for several secrets of one snapshot.
type GetManyRequest struct {
	Op Op `json:"op"`
	// Names are the secrets, each once. Without it: the whole allowlist.
	Names []SecretName `json:"names,omitzero"`
	// WaitMS is how long to wait, in milliseconds, until every allowed one of
	// them is there; at most MaxWait.
	WaitMS int64 `json:"wait_ms,omitzero"`
}

// GetManyResponse holds what there is and says what there is not. Every name
// asked for is in exactly one of the two maps.
type GetManyResponse struct {
	// OK is true.
	OK bool `json:"ok"`
	// Generation is that of the snapshot all the values are from; 0 says that
	// none is loaded.
	Generation uint64                     `json:"generation"`
	Secrets    map[SecretName]SecretValue `json:"secrets"`
	Errors     map[SecretName]SecretError `json:"errors"`
}

// SecretError says why one secret of a get-many was not answered: denied,
// not_found or not_loaded.
type SecretError struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// InfoRequest asks what this project may fetch.
type InfoRequest struct {
	Op Op `json:"op"`
}

// InfoResponse gives the allowlist, sorted, whether or not such secrets exist,
// and what else the approved manifest says of them. What lies in the project's
// tree is none of a client's business: whoever can write there did not approve it.
type InfoResponse struct {
	// OK is true.
	OK        bool         `json:"ok"`
	Project   ProjectName  `json:"project"`
	Allowlist []SecretName `json:"allowlist"`
	// SchemaVersion is the manifest's.
	SchemaVersion int `json:"schema_version"`
	// Secrets says how each one is injected, with the defaults filled in.
	Secrets map[SecretName]*Injection `json:"secrets,omitempty"`
	// Helpers are the manifest's, where it has any.
	Helpers *Helpers `json:"helpers,omitempty"`
}

// WatchRequest asks to be told when secrets change. The connection has no more
// requests behind it.
type WatchRequest struct {
	Op Op `json:"op"`
}

// WatchResponse says that from now on ChangedEvents follow.
type WatchResponse struct {
	// OK is true.
	OK bool `json:"ok"`
	// Generation is that of the set from which changes count; 0 says that none
	// is loaded.
	Generation uint64 `json:"generation"`
}

// WatchEventChanged is the event of every ChangedEvent.
const WatchEventChanged = "changed"

// ChangedEvent says that a get of Names may be answered otherwise than before.
type ChangedEvent struct {
	// Event is changed.
	Event string `json:"event"`
	// Generation is that of the set that is loaded now; 0 says that none is.
	Generation uint64 `json:"generation"`
	// Names are the secrets that came, went or have another value since the
	// line before, sorted. They are, or just were, on the allowlist.
	Names []SecretName `json:"names"`
}

// ProjectPingResponse says who is there, and which project this socket is.
type ProjectPingResponse struct {
	// OK is true.
	OK              bool        `json:"ok"`
	BrokerVersion   string      `json:"broker_version"`
	ProtocolVersion int         `json:"protocol_version"`
	InstanceID      string      `json:"instance_id"`
	Project         ProjectName `json:"project"`
}
