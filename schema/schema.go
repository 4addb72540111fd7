// Package schema defines keyhatch's wire protocol: the message types, operation
// names, error codes, events, patterns of names, and limits. Both ends of every
// socket use these types. The published JSON Schemas are generated from them:
//
//   - keyhatch.v2.json contains the requests and responses of both sockets, and
//     the audit events.
//   - manifest.v1.json describes a project's manifest.
//
// PROTOCOL.md in this directory explains how to use the messages. Within protocol
// version 2, changes must be additive, for example a new optional request field, a
// new response field, or a new op, code, or event. Tests compare the types with the
// committed schemas, and these with the schema of the last release.
//
// The package parses no input. The validation of names is its only code that
// handles input.
package schema

//go:generate go run ./gen

import "time"

// ProtocolVersion is the major version of the wire protocol. ping and status
// return it. A client must stop if the broker returns another version.
const ProtocolVersion = 2

// ManifestVersion is the required schema_version of a manifest.
const ManifestVersion = 1

// Limits of the wire protocol. The length of a line is in bytes, without its
// newline.
const (
	// MaxRequest is the maximum length of a request of every op except push-creds.
	MaxRequest = 64 << 10
	// MaxPush is the maximum length of a push-creds request.
	MaxPush = 1 << 20
	// MaxResponse is the maximum length of a response. It is large enough for all
	// secrets of a push of MaxPush bytes, even if every byte must be escaped again.
	MaxResponse = 8 << 20
	// MaxDepth is the maximum nesting depth of objects and arrays in a request. A
	// push needs three levels: the request, its secrets, and a bundle.
	MaxDepth = 3
	// MaxResponseDepth is the maximum nesting depth of a response.
	MaxResponseDepth = 4
	// MaxManifest is the maximum size of a manifest, in bytes.
	MaxManifest = 32 << 10
	// MaxDescription is the maximum length of a manifest's description, in
	// characters.
	MaxDescription = 256
	// MaxWait is the maximum of wait_ms in a get or get-many.
	MaxWait = 5 * time.Minute
)

// Limits of connections and times. They cannot be configured yet.
const (
	// MaxProjectConnections is the maximum number of connections of one project.
	MaxProjectConnections = 64
	// MaxAdminConnections is the maximum number of connections of the admin socket.
	MaxAdminConnections = 16
	// LineTimeout is the maximum time from the first byte of a request to its last.
	LineTimeout = 5 * time.Second
	// WriteTimeout is the maximum time for a client to read a response.
	WriteTimeout = 2 * time.Second
	// IdleTimeout is the maximum time that a connection waits for the next request.
	IdleTimeout = 5 * time.Minute
)

// Rate limits of one project. The rates are per second, and flags of the broker can
// change them. The burst is the rate multiplied by the factor.
const (
	DefaultRequestRate = 200
	DefaultRefusalRate = 10 // names that are denied or not found
	RequestBurstFactor = 2
	RefusalBurstFactor = 3
	// PeerRefusedBurst is the number of peer.refused events that the broker records
	// for one project without a limit. Then it records at most one per second.
	PeerRefusedBurst = 10
)
