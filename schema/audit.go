package schema

import "time"

// EventName names an audit event.
type EventName string

// The audit events.
const (
	EventBrokerStarted       EventName = "broker.started"
	EventBrokerStopped       EventName = "broker.stopped"
	EventSecretsPushed       EventName = "secrets.pushed"
	EventSecretsCleared      EventName = "secrets.cleared"
	EventPushRejected        EventName = "push.rejected"
	EventProjectRegistered   EventName = "project.registered"
	EventProjectUnregistered EventName = "project.unregistered"
	EventProjectReloaded     EventName = "project.reloaded"
	EventManifestRejected    EventName = "manifest.rejected"
	EventSecretsFetched      EventName = "secrets.fetched"
	EventPeerRefused         EventName = "peer.refused"
	EventRateLimited         EventName = "rate.limited"
	EventAuditDropped        EventName = "audit.dropped"
)

// AuditEvent ties an event's name to its type, given as a zero value.
type AuditEvent struct {
	Name  EventName
	Event any
}

// AuditEvents are all the events. None of their types has a field that could
// hold a secret's name or value: numbers, times, and names of closed sets and
// of projects are all there is, and a test walks the types to keep it so.
var AuditEvents = []AuditEvent{
	{EventBrokerStarted, BrokerStarted{}},
	{EventBrokerStopped, BrokerStopped{}},
	{EventSecretsPushed, SecretsPushed{}},
	{EventSecretsCleared, SecretsCleared{}},
	{EventPushRejected, PushRejected{}},
	{EventProjectRegistered, ProjectRegistered{}},
	{EventProjectUnregistered, ProjectUnregistered{}},
	{EventProjectReloaded, ProjectReloaded{}},
	{EventManifestRejected, ManifestRejected{}},
	{EventSecretsFetched, SecretsFetched{}},
	{EventPeerRefused, PeerRefused{}},
	{EventRateLimited, RateLimited{}},
	{EventAuditDropped, AuditDropped{}},
}

// EventHeader is what every audit event begins with.
type EventHeader struct {
	// Time is when it happened (RFC 3339, UTC).
	Time  time.Time `json:"time"`
	Event EventName `json:"event"`
}

// EventCaller is the process at the other end of the connection, as the
// kernel reported it when it connected (SO_PEERCRED, unix(7)).
type EventCaller struct {
	PeerUID uint32 `json:"peer_uid"`
	PeerGID uint32 `json:"peer_gid"`
	PeerPID int32  `json:"peer_pid"`
}

// BrokerStarted says that the daemon began to serve.
type BrokerStarted struct {
	EventHeader
	ProtocolVersion int `json:"protocol_version"`
}

// BrokerStopped says that the daemon stopped in an orderly way.
type BrokerStopped struct {
	EventHeader
}

// SecretsPushed says that a push was taken.
type SecretsPushed struct {
	EventHeader
	EventCaller
	SecretCount int    `json:"secret_count"`
	Generation  uint64 `json:"generation"`
}

// SecretsCleared says that the set was dropped; SecretCount is how many there
// were.
type SecretsCleared struct {
	EventHeader
	EventCaller
	SecretCount int `json:"secret_count"`
}

// PushRejected says that a push was refused and changed nothing.
type PushRejected struct {
	EventHeader
	EventCaller
	Code Code `json:"code"`
}

// ProjectRegistered says that a project came online.
type ProjectRegistered struct {
	EventHeader
	EventCaller
	Project       ProjectName `json:"project"`
	AllowlistSize int         `json:"allowlist_size"`
}

// ProjectUnregistered says that a project went offline.
type ProjectUnregistered struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
}

// ProjectReloaded says that an allowlist was swapped; Added and Removed are
// numbers of names.
type ProjectReloaded struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
	Added   int         `json:"added"`
	Removed int         `json:"removed"`
}

// ManifestRejected says that a register or reload was refused for its
// manifest.
type ManifestRejected struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
	Code    Code        `json:"code"`
}

// SecretsFetched counts what one get or get-many came to. NotFound counts
// not_loaded too.
type SecretsFetched struct {
	EventHeader
	EventCaller
	Project  ProjectName `json:"project"`
	Allowed  int         `json:"allowed"`
	Denied   int         `json:"denied"`
	NotFound int         `json:"not_found"`
}

// PeerRefused says that a caller's uid may not use a project's socket. Beyond the
// first PeerRefusedBurst there is one a second at most.
type PeerRefused struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
}

// RateLimited says that a project asks too often. There is one a second at most,
// however often it was refused.
type RateLimited struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
}

// AuditDropped says how many events could not be recorded since the last one
// that could.
type AuditDropped struct {
	EventHeader
	Count uint64 `json:"count"`
}
