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
	snapshot := r.view.Acquire() // nil if no secrets are loaded
	defer snapshot.Release()
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[request.Name]
	if e == nil && r.unserved[request.Name] == nil {
		return schema.ExplainResponse{}, refuse(schema.CodeProjectUnknown, "%s is not registered", request.Name)
	}
	audit.Record(r.audit, schema.SecretExplained{
		EventHeader: audit.Header(schema.EventSecretExplained), EventCaller: caller.Event(), Project: request.Name,
	})
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
		AuditUnavailable:   r.audit.IsUnavailable(),
		RetryAfterSeconds:  e.project.RequestLimit().RetryAfter(),
	}
	if snapshot != nil {
		_, response.SecretPresent = snapshot.Lookup(request.Secret)
	}
	return response, nil
}
