package schema

import "time"

// EventName is the name of an audit event.
type EventName string

// The names of the audit events.
const (
	EventBrokerStarted       EventName = "broker.started"
	EventBrokerStopped       EventName = "broker.stopped"
	EventSecretsPushed       EventName = "secrets.pushed"
	EventSecretsCleared      EventName = "secrets.cleared"
	EventPushRejected        EventName = "push.rejected"
	EventProjectRegistered   EventName = "project.registered"
	EventProjectUnregistered EventName = "project.unregistered"
	EventProjectReloaded     EventName = "project.reloaded"
	EventProjectChanged      EventName = "project.changed"
	EventManifestRejected    EventName = "manifest.rejected"
	EventReloadPreviewed     EventName = "reload.previewed"
	EventProjectInspected    EventName = "project.inspected"
	EventSecretsListed       EventName = "secrets.listed"
	EventSecretExplained     EventName = "secret.explained"
	EventRequestRejected     EventName = "request.rejected"
	EventSecretsFetched      EventName = "secrets.fetched"
	EventPeerRefused         EventName = "peer.refused"
	EventRateLimited         EventName = "rate.limited"
	EventAuthFailed          EventName = "auth.failed"
	EventAuditDropped        EventName = "audit.dropped"
	EventEventsMissed        EventName = "events.missed"
)

// AuditEvent contains the name of an audit event, and the zero value of the event's Go type.
type AuditEvent struct {
	Name  EventName
	Event any
}

// AuditEvents lists all audit events. Their types can contain only numbers, times, codes,
// and names of events and projects. A test checks that none of their fields can contain
// the name or the value of a secret.
var AuditEvents = []AuditEvent{
	{EventBrokerStarted, BrokerStarted{}},
	{EventBrokerStopped, BrokerStopped{}},
	{EventSecretsPushed, SecretsPushed{}},
	{EventSecretsCleared, SecretsCleared{}},
	{EventPushRejected, PushRejected{}},
	{EventProjectRegistered, ProjectRegistered{}},
	{EventProjectUnregistered, ProjectUnregistered{}},
	{EventProjectReloaded, ProjectReloaded{}},
	{EventProjectChanged, ProjectChanged{}},
	{EventManifestRejected, ManifestRejected{}},
	{EventReloadPreviewed, ReloadPreviewed{}},
	{EventProjectInspected, ProjectInspected{}},
	{EventSecretsListed, SecretsListed{}},
	{EventSecretExplained, SecretExplained{}},
	{EventRequestRejected, RequestRejected{}},
	{EventSecretsFetched, SecretsFetched{}},
	{EventPeerRefused, PeerRefused{}},
	{EventRateLimited, RateLimited{}},
	{EventAuthFailed, AuthFailed{}},
	{EventAuditDropped, AuditDropped{}},
	{EventEventsMissed, EventsMissed{}},
}

// EventHeader contains the first fields of every audit event.
type EventHeader struct {
	// Time is the time of the event (RFC 3339, UTC).
	Time  time.Time `json:"time"`
	Event EventName `json:"event"`
}

// When returns the time of the event.
func (h EventHeader) When() time.Time { return h.Time }

// EventCaller identifies the process that sent the request. The kernel recorded the uid, the
// gid, and the pid when the process connected to the socket (SO_PEERCRED, unix(7)). If the
// broker changed a project because of a declaration, EventCaller identifies the broker itself.
type EventCaller struct {
	PeerUID uint32 `json:"peer_uid"`
	PeerGID uint32 `json:"peer_gid"`
	// PeerPID is the pid of the process. The field is absent if the broker cannot see the pid
	// namespace of the process, or if the event counts requests of several processes.
	PeerPID int32 `json:"peer_pid,omitzero"`
}

// BrokerStarted reports that the broker started to serve.
type BrokerStarted struct {
	EventHeader
	ProtocolVersion int `json:"protocol_version"`
}

// BrokerStopped reports that the broker shut down cleanly.
type BrokerStopped struct {
	EventHeader
}

// SecretsPushed reports that the broker accepted a push.
type SecretsPushed struct {
	EventHeader
	EventCaller
	SecretCount int    `json:"secret_count"`
	Generation  uint64 `json:"generation"`
}

// SecretsCleared reports that the broker answered a clear-creds request. SecretCount is the
// number of removed secrets, or 0 if no secrets were loaded.
type SecretsCleared struct {
	EventHeader
	EventCaller
	SecretCount int `json:"secret_count"`
}

// PushRejected reports that the broker rejected a push and kept the old secrets.
type PushRejected struct {
	EventHeader
	EventCaller
	Code Code `json:"code"`
}

// ProjectRegistered reports that the broker registered a project. If a registration changes
// the name or the allow_uids of a project, the broker records a ProjectRegistered and a
// ProjectUnregistered. The broker records no event for a project that it restores after a
// restart.
type ProjectRegistered struct {
	EventHeader
	EventCaller
	Project       ProjectName `json:"project"`
	AllowlistSize int         `json:"allowlist_size"`
}

// ProjectUnregistered reports that a project was unregistered.
type ProjectUnregistered struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
}

// ProjectReloaded reports that a reload or a registration replaced the manifest of a
// project. Added is the number of names that were added to the allowlist, and Removed is the
// number of names that were removed from the allowlist.
type ProjectReloaded struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
	Added   int         `json:"added"`
	Removed int         `json:"removed"`
}

// ProjectChanged reports a registration that changed only the devcontainer_ids of a
// project, or changed only whether the project is declared, or changed both.
type ProjectChanged struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
}

// ManifestRejected reports that a register or reload, possibly with dry_run, failed because
// its manifest is invalid, cannot be read, or does not exist.
type ManifestRejected struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
	Code    Code        `json:"code"`
}

// ReloadPreviewed reports that the broker answered a reload with dry_run. Added is the
// number of names that the reload would add to the allowlist, and Removed is the number of
// names that the reload would remove from the allowlist.
type ReloadPreviewed struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
	Added   int         `json:"added"`
	Removed int         `json:"removed"`
}

// ProjectInspected reports that the broker answered an inspect request.
type ProjectInspected struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
}

// SecretsListed reports that the broker answered a list-creds request. SecretCount is the
// number of names in the response.
type SecretsListed struct {
	EventHeader
	EventCaller
	SecretCount int `json:"secret_count"`
}

// SecretExplained reports that the broker answered an explain request.
type SecretExplained struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
}

// RequestRejected reports that the broker refused a request on the admin socket that would
// change something, or whose response would contain names of secrets. For a refused push, the
// broker records a PushRejected and no RequestRejected. For a manifest that is invalid or
// cannot be read, the broker records a ManifestRejected and no RequestRejected. For a refused
// register with dry_run, the broker records no RequestRejected.
type RequestRejected struct {
	EventHeader
	EventCaller
	// Request is the event that the broker records if it accepts a request of the same
	// kind, for example secrets.listed.
	Request EventName `json:"request"`
	// Project is the name in the request. The field is absent if no registered project has this
	// name.
	Project ProjectName `json:"project,omitzero"`
	Code    Code        `json:"code"`
}

// SecretsFetched contains the number of requested names for each result of a get or get-many.
// NotFound includes the names for which the result was not_loaded. One event can count several
// requests of the same uid.
type SecretsFetched struct {
	EventHeader
	EventCaller
	Project  ProjectName `json:"project"`
	Allowed  int         `json:"allowed"`
	Denied   int         `json:"denied"`
	NotFound int         `json:"not_found"`
}

// PeerRefused reports that the broker refused a caller, because the caller's uid is not
// allowed to use the project's socket. After the first PeerRefusedBurst PeerRefused events of
// a project, the broker records at most one PeerRefused of this project per second.
type PeerRefused struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
}

// RateLimited reports that a project exceeded its limit on requests or on refused names. For
// each project, the broker records at most one RateLimited per second.
type RateLimited struct {
	EventHeader
	EventCaller
	Project ProjectName `json:"project"`
}

// AuthFailed reports that the first request of a client of the admin socket did not contain the
// admin token, or did not arrive in time, or that a later auth request contained a wrong token.
// After the first AuthFailedBurst AuthFailed events, the broker records at most
// one AuthFailed per second.
type AuthFailed struct {
	EventHeader
	EventCaller
}

// AuditDropped contains the number of events that the broker could not write since the
// previous AuditDropped event, or since the start of the broker.
type AuditDropped struct {
	EventHeader
	Count uint64 `json:"count"`
}

// EventsMissed contains the number of events that the reader of an event stream missed,
// because the events were no longer in memory when the reader could receive them. EventsMissed
// is only in the lines that the broker sends after an events request, and not in the audit
// log.
type EventsMissed struct {
	EventHeader
	Count uint64 `json:"count"`
}
