package broker

import (
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/schema"
)

// explain makes the checks of a get, and returns the results of these checks. It must be available
// only on the admin socket, because it also reports whether a secret exists that is not on the
// allowlist. explain does not read the value of the secret.
func (r *registry) explain(request schema.ExplainRequest, caller endpoint.Caller) (schema.ExplainResponse, error) {
	if err := checkProjectName(request.Name); err != nil {
		return schema.ExplainResponse{}, err
	}
	if !schema.ValidSecretName(request.Secret) {
		return schema.ExplainResponse{}, refuse(schema.CodeProtocolError, "secret must match %s", schema.SecretNamePattern)
	}
	r.mu.Lock()
	err := r.checkRegisteredLocked(request.Name)
	r.mu.Unlock()
	if err != nil {
		return schema.ExplainResponse{}, err
	}
	// Record the event without r.mu, because this can take a second.
	audited := audit.RecordAndWait(r.audit, schema.SecretExplained{
		EventHeader: audit.Header(schema.EventSecretExplained), EventCaller: caller.Event(), Project: request.Name,
	})
	snapshot := r.view.Acquire() // nil if no secrets are loaded
	defer snapshot.Release()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.checkRegisteredLocked(request.Name); err != nil {
		return schema.ExplainResponse{}, err
	}
	e := r.entries[request.Name]
	if e == nil {
		return schema.ExplainResponse{OK: true, Unserved: true}, nil
	}
	response := schema.ExplainResponse{
		OK:                 true,
		SocketInPlace:      r.dir.IsIntact(e.socket),
		SocketModeChanged:  r.dir.IsModeChanged(e.socket),
		UIDAllowed:         e.project.Allows(endpoint.Caller{UID: request.UID}),
		SecretAllowed:      e.project.Manifest().Allows(request.Secret),
		SecretsLoaded:      snapshot != nil,
		TooManyConnections: e.endpoint.Connections() >= schema.MaxProjectConnections,
		AuditUnavailable:   !audited,
		RetryAfterSeconds:  e.project.RequestLimit().RetryAfter(),
	}
	if snapshot != nil {
		_, response.SecretPresent = snapshot.Lookup(request.Secret)
	}
	return response, nil
}

// checkRegisteredLocked returns an error if the broker has no registration of the project. The
// error is nil if the broker has a registration but does not serve the project now.
func (r *registry) checkRegisteredLocked(name schema.ProjectName) error {
	if r.entries[name] == nil && r.unserved[name] == nil {
		return refuse(schema.CodeProjectUnknown, "%s is not registered", name)
	}
	return nil
}
