package audit

import (
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// Event lists the types of audit events. None of these types has a field for the name or the
// value of a secret, so that no code records a secret by mistake.
type Event interface {
	schema.BrokerStarted | schema.BrokerStopped |
		schema.SecretsPushed | schema.SecretsCleared | schema.PushRejected |
		schema.ProjectRegistered | schema.ProjectUnregistered | schema.ProjectReloaded | schema.ProjectChanged |
		schema.ManifestRejected | schema.ReloadPreviewed | schema.ProjectInspected |
		schema.SecretsListed | schema.SecretExplained | schema.RequestRejected | schema.SecretsFetched | schema.PeerRefused | schema.RateLimited |
		schema.AuthFailed | schema.AuditDropped
	When() time.Time
}

// Header returns the header of an audit event. Its time is the current time.
func Header(name schema.EventName) schema.EventHeader {
	return schema.EventHeader{Time: time.Now().UTC(), Event: name}
}

// A Fetch is the content of the audit event for one answer to a client of a project, or for the
// sum of several answers. Allowed is the number of secrets in the answers. Denied is the number
// of requested names that are not on the allowlist. NotFound is the number of requested names
// that are on the allowlist, but for which the broker has no secret.
type Fetch struct {
	Caller                    schema.EventCaller
	Allowed, Denied, NotFound int
}

// An item is an event in a buffer. A fetch needs no memory outside the item.
type item struct {
	time    time.Time
	event   any // nil if the event is a fetch
	project schema.ProjectName
	fetch   Fetch
	givenUp bool // addAndWait no longer waits for this event, so the writer must not write it
}

// encode returns the event as one line. It returns an error only if there is a bug in the broker,
// because the broker validates the text in events.
func (i *item) encode() ([]byte, error) {
	if i.event != nil {
		return wire.Encode(i.event)
	}
	return wire.Encode(schema.SecretsFetched{
		EventHeader: schema.EventHeader{Time: i.time.UTC(), Event: schema.EventSecretsFetched},
		EventCaller: i.fetch.Caller, Project: i.project,
		Allowed: i.fetch.Allowed, Denied: i.fetch.Denied, NotFound: i.fetch.NotFound,
	})
}
