package broker

import (
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// acceptedEvents contains the ops of the admin socket that change something, or whose response
// contains names of secrets, and the event that the broker records if it accepts the request.
// It does not contain push-creds, whose refusals have their own event.
var acceptedEvents = map[schema.Op]schema.EventName{
	schema.OpClear:      schema.EventSecretsCleared,
	schema.OpRegister:   schema.EventProjectRegistered,
	schema.OpUnregister: schema.EventProjectUnregistered,
	schema.OpReload:     schema.EventProjectReloaded,
	schema.OpInspect:    schema.EventProjectInspected,
	schema.OpList:       schema.EventSecretsListed,
	schema.OpExplain:    schema.EventSecretExplained,
}

// existsLocked reports whether a project has this name, even if the broker cannot serve the project.
func (r *registry) existsLocked(name schema.ProjectName) bool {
	return r.entries[name] != nil || r.unserved[name] != nil
}

// recordRejected records in the audit log that a request on the admin socket was refused with
// code. line is the request. Its op must be op, but it can be malformed.
func recordRejected(r *registry, op schema.Op, line []byte, caller endpoint.Caller, code schema.Code) {
	accepted, ok := acceptedEvents[op]
	if !ok {
		return
	}
	var request struct { // fields of all these requests
		Name   schema.ProjectName `json:"name"`
		DryRun bool               `json:"dry_run"`
	}
	if wire.Decode(line, &request, schema.MaxDepth) != nil {
		request.Name = ""
	}
	switch {
	case op == schema.OpRegister && request.DryRun:
		return // this request would change nothing, and its response contains no name of a secret
	case op == schema.OpReload && request.DryRun:
		accepted = schema.EventReloadPreviewed
	}
	// Somebody can confuse the name of a project with the name or the value of a secret. So the
	// event contains only the name of a project that exists.
	r.mu.Lock()
	if !r.existsLocked(request.Name) {
		request.Name = ""
	}
	r.mu.Unlock()
	audit.Record(r.audit, schema.RequestRejected{
		EventHeader: audit.Header(schema.EventRequestRejected), EventCaller: caller.Event(),
		Request: accepted, Project: request.Name, Code: code,
	})
}
