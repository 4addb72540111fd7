package broker

import (
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// acceptedEvents maps ops of the admin socket to the events that the broker records if it accepts a
// request with the op. It contains the ops that change something, or that reveal which secrets
// exist or may be fetched. It does not contain push-creds, whose refusals have their own event.
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

// recordRejected records in the audit log that the broker has refused a request on the admin socket
// with this code. It records only ops in acceptedEvents. line is the request, which has the given
// op. The other fields of the request can be invalid.
func recordRejected(r *registry, op schema.Op, line []byte, caller endpoint.Caller, code schema.Code) {
	accepted, ok := acceptedEvents[op]
	if !ok {
		return
	}
	var request struct { // the fields that recordRejected needs; some requests have no dry_run
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
	// By mistake, an operator can write the name or the value of a secret at the place of the name
	// of a project. So the event contains the name only if a project with this name exists.
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
