// Package schema defines keyhatch's wire protocol: the message types, operation names,
// error codes, events, patterns of names, and limits. The broker and all its clients use
// these types. The published JSON Schemas are generated from the types:
//
//   - keyhatch.v2.json contains the requests and responses of both kinds of socket, and
//     the audit events.
//   - manifest.v1.json describes a project's manifest.
//
// PROTOCOL.md in this directory explains how to use the messages. Within protocol version
// 2, changes must be additive. Examples of additive changes are a new optional request
// field, a new response field, a new op, a new code, or a new event. Tests compare the
// types with the committed schemas, and the committed schemas with the schema of the last
// release.
//
// The package does not parse messages. Only its functions that validate names handle
// untrusted input.
package schema

//go:generate go run ./gen

import "time"

// ProtocolVersion is the major version of the wire protocol. The responses of ping and
// status contain the version of the broker. A client must stop if the broker has another
// version.
const ProtocolVersion = 2

// ManifestVersion is the schema_version that every manifest must have.
const ManifestVersion = 1

// UnmappedUID is the uid that the kernel, by default, reports for every user without a uid in
// the user namespace of the process that asks (user_namespaces(7), overflowuid). The broker
// never allows this uid, because all such users have it.
const UnmappedUID = 65534

// Limits of the wire protocol. The length of a request or response is in bytes, and does
// not include the newline.
const (
	// MaxRequest is the maximum length of a request, except for a push-creds request.
	MaxRequest = 64 << 10
	// MaxPush is the maximum length of a push-creds request.
	MaxPush = 1 << 20
	// MaxAuth is the maximum length of the first request of a connection to the admin socket,
	// if the broker requires an admin token.
	MaxAuth = 1 << 10
	// MaxResponse is the maximum length of a response. All secrets of a push of MaxPush
	// bytes fit into one response, even if the broker must escape every byte again.
	MaxResponse = 8 << 20
	// MaxDepth is the maximum nesting depth of objects and arrays in a request. The request
	// itself is the first level. A push needs three levels: the request, the map of secrets,
	// and a bundle.
	MaxDepth = 3
	// MaxResponseDepth is the maximum nesting depth of objects and arrays in a response. The
	// response itself is the first level.
	MaxResponseDepth = 4
	// MaxManifest is the maximum size of a manifest, in bytes.
	MaxManifest = 32 << 10
	// MaxDescription is the maximum length of a manifest's description, in
	// characters.
	MaxDescription = 256
	// MaxWait is the maximum time that a get or get-many can wait. In JSON, wait_ms is this
	// time in milliseconds.
	MaxWait = 5 * time.Minute
)

// Limits on connections and times. The operator cannot change these limits yet.
const (
	// MaxProjectConnections is the maximum number of connections of one project.
	MaxProjectConnections = 64
	// MaxAdminConnections is the maximum number of connections of the admin socket.
	MaxAdminConnections = 16
	// MaxUnauthorized is the maximum number of connections of the admin socket whose clients
	// have not sent the admin token, if the broker requires an admin token.
	MaxUnauthorized = 256
	// AuthTimeout is the maximum time from the beginning of a connection until the broker has
	// received the admin token, if the broker requires an admin token.
	AuthTimeout = 5 * time.Second
	// LineTimeout is the maximum time from the first byte of a request to its last byte.
	LineTimeout = 5 * time.Second
	// WriteTimeout is the maximum time in which the broker tries to send a response. If the
	// client reads too slowly, the broker closes the connection after this time.
	WriteTimeout = 2 * time.Second
	// IdleTimeout is the maximum time that the broker waits for the next request on a
	// connection.
	IdleTimeout = 5 * time.Minute
)

// Rate limits of one project. DefaultRequestRate and DefaultRefusalRate are per second, and
// the operator can change both rates with flags or with the settings file of the broker.
// The maximum burst is the rate multiplied by its burst factor, which is 10 * 3 refused
// names by default.
const (
	DefaultRequestRate = 200
	DefaultRefusalRate = 10 // limits names that are denied or not found
	RequestBurstFactor = 2
	RefusalBurstFactor = 3
	// PeerRefusedBurst is how many peer.refused events of one project the broker records
	// without a limit. After these events, the broker records at most one peer.refused event
	// of the project per second.
	PeerRefusedBurst = 10
	// AuthFailedBurst is how many auth.failed events the broker records without a limit. After
	// these events, the broker records at most one auth.failed event per second.
	AuthFailedBurst = 10
)
