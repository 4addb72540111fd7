// Package schema is keyhatch's contract: every wire type, op name, error code,
// event, name rule and limit, and nothing else. Both ends of every socket are
// written against it, and the published JSON Schemas are generated from it:
//
//   - keyhatch.v2.json: the requests and responses of both sockets, and the
//     audit events;
//   - manifest.v1.json: a project's manifest.
//
// PROTOCOL.md beside this file says how the types are used. Within protocol
// version 2 a change is additive: a new optional request field, a new response
// field, a new op, code or event. The tests hold the types to the committed
// schemas and to a baseline of what has been published.
//
// The package has no code that runs on input, so it has nothing to trust.
package schema

//go:generate go run ./gen

import "time"

// ProtocolVersion is the major version of the wire protocol. It is answered by
// ping and status, and a client refuses to go on with any other.
const ProtocolVersion = 2

// ManifestVersion is the schema_version a manifest must carry.
const ManifestVersion = 1

// Limits of the wire protocol. A line's length is counted in bytes, without
// its newline.
const (
	// MaxRequest bounds a request line of every op but push-creds.
	MaxRequest = 64 << 10
	// MaxPush bounds the request line of a push-creds.
	MaxPush = 1 << 20
	// MaxResponse bounds a response line. It leaves room for a push of
	// MaxPush bytes of which every byte must be escaped once more.
	MaxResponse = 8 << 20
	// MaxDepth is how deep objects and arrays nest in a request: the request,
	// its secrets, and a bundle in them.
	MaxDepth = 3
	// MaxResponseDepth is the same for a response.
	MaxResponseDepth = 4
	// MaxManifest bounds a manifest's text, in bytes.
	MaxManifest = 32 << 10
	// MaxDescription bounds a manifest's description, in characters.
	MaxDescription = 256
	// MaxWait bounds the wait_ms of a get or get-many.
	MaxWait = 5 * time.Minute
)

// Limits on connections and time. A daemon's flags can change none of them
// yet; a client need not know them to be served.
const (
	// MaxProjectConnections bounds the connections of one project.
	MaxProjectConnections = 64
	// MaxAdminConnections bounds the connections of the admin socket.
	MaxAdminConnections = 16
	// LineTimeout is how long a line may take from its first byte to its last.
	LineTimeout = 5 * time.Second
	// WriteTimeout is how long a client may take to accept a response.
	WriteTimeout = 2 * time.Second
	// IdleTimeout is how long a connection may say nothing.
	IdleTimeout = 5 * time.Minute
)

// Limits on what a project may ask. The rates are a second's, and a daemon's
// flags change them; what comes at once may be that many times a rate.
const (
	DefaultRequestRate = 200
	DefaultRefusalRate = 10 // names that are denied or not found
	RequestBurstFactor = 2
	RefusalBurstFactor = 3
	// PeerRefusedBurst is how many peer.refused events of one project there are
	// before there is at most one a second.
	PeerRefusedBurst = 10
)
