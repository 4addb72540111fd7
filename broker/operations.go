package broker

import (
	"errors"

	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/schema"
)

// register adds a project. If the broker already serves a project at the same path, register
// changes this project, but only if replace is true in the request, or if the request changes
// nothing except that the project becomes declared.
func (r *registry) register(request schema.RegisterRequest, caller endpoint.Caller) (schema.RegisterResponse, error) {
	if err := checkRegistration(request); err != nil {
		return schema.RegisterResponse{}, err
	}
	// Read the manifest before mu is locked. A container that can write to the project's
	// directory could block the read, and with mu locked, this would block all other
	// operations of the registry.
	parsed, text, manifestErr := readManifest(request.ProjectPath, request.Manifest)
	owner := ownerOf(request.ProjectPath) // a container could block this operation, too
	r.changing.Lock()
	defer r.changing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return schema.RegisterResponse{}, errStopping()
	}
	if len(request.AllowUIDs) == 0 {
		request.AllowUIDs = r.defaultUIDsLocked(request, owner)
		if err := checkRegistration(request); err != nil { // an invalid stored registration can contain invalid uids
			return schema.RegisterResponse{}, err
		}
	}
	if err := r.checkNamesLocked(request); err != nil {
		return schema.RegisterResponse{}, err
	}
	request.Manifest = &text
	registered := r.findPathLocked(request.ProjectPath)
	onlyDeclares := registered != nil && request.Declared && request.Name == registered.registration.Name &&
		compareRegistrations(registered.registration, request) == nil
	if registered != nil && !request.Replace && !onlyDeclares {
		return schema.RegisterResponse{}, refuse(schema.CodeProjectExists, "project %s is already registered: use reload to change its manifest", registered.registration.Name)
	}
	if manifestErr != nil && !r.existsLocked(request.Name) {
		return schema.RegisterResponse{}, manifestErr // recordRejected then records the refusal without the unknown name
	}
	if manifestErr != nil {
		return schema.RegisterResponse{}, r.rejectManifest(request.Name, manifestErr, caller)
	}
	if request.DryRun {
		return schema.RegisterResponse{OK: true, SocketPath: r.dir.NamedSocket(request.Name)}, nil
	}
	request.Replace = false
	if err := r.addOrChangeLocked(request, parsed, caller); err != nil {
		return schema.RegisterResponse{}, err
	}
	return schema.RegisterResponse{OK: true, SocketPath: r.dir.NamedSocket(request.Name)}, nil
}

// defaultUIDsLocked returns the uids for a request without allow_uids. Untrusted code can
// change the owner of a project's directory at any time. So the owner is allowed only if the
// project is new, and not if the project is registered or declared: a registered project keeps
// its uids, and a declaration contains all uids of its project.
func (r *registry) defaultUIDsLocked(request schema.RegisterRequest, owner []uint32) []uint32 {
	name := r.index.byPath[request.ProjectPath]
	switch e, u := r.entries[name], r.unserved[name]; {
	case e != nil:
		return e.registration.AllowUIDs
	case u != nil:
		return u.registration.AllowUIDs
	case request.Declared:
		return nil
	}
	return owner
}

// unregister ends a project's connections and removes its socket. It does not remove the
// project's directory. If the project is registered again, a container that still mounts
// the directory can fetch secrets again. unregister also keeps the links with the project's
// name and dev container IDs, so that no other project can use this name and these IDs (see
// rundir.Dir.CheckName).
func (r *registry) unregister(request schema.UnregisterRequest, caller endpoint.Caller) (schema.OKResponse, error) {
	if err := checkProjectName(request.Name); err != nil {
		return schema.OKResponse{}, err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.unserved[request.Name]; u != nil && !r.stopping {
		r.forgetUnservedLocked(request.Name, u.registration.ProjectPath)
		r.recordUnregistered(request.Name, caller)
		return schema.OKResponse{OK: true}, nil
	}
	e, err := r.findLocked(request.Name)
	if err != nil {
		return schema.OKResponse{}, err
	}
	r.removeProjectLocked(e, caller)
	return schema.OKResponse{OK: true}, nil
}

// inspect returns the registration of a project, even if the broker cannot serve the project.
func (r *registry) inspect(request schema.InspectRequest, caller endpoint.Caller) (schema.InspectResponse, error) {
	if err := checkProjectName(request.Name); err != nil {
		return schema.InspectResponse{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e, u := r.entries[request.Name], r.unserved[request.Name]
	var registration schema.RegisterRequest
	switch {
	case e != nil:
		registration = e.registration
	case u != nil:
		registration = u.registration
	default:
		return schema.InspectResponse{}, refuse(schema.CodeProjectUnknown, "%s is not registered", request.Name)
	}
	audit.Record(r.audit, schema.ProjectInspected{
		EventHeader: audit.Header(schema.EventProjectInspected), EventCaller: caller.Event(), Project: request.Name,
	})
	response := schema.InspectResponse{
		OK: true, Name: request.Name, ProjectPath: registration.ProjectPath, SocketPath: r.dir.NamedSocket(request.Name),
		AllowUIDs: registration.AllowUIDs, DevcontainerIDs: registration.DevcontainerIDs,
		Declared: registration.Declared, Unserved: e == nil,
	}
	if registration.Manifest != nil { // an invalid stored registration can have no manifest
		response.Manifest = *registration.Manifest
	}
	return response, nil
}

// reload replaces a project's manifest, and returns the changes of the allowlist. The project's
// connections stay open. If the request is a dry run, reload only returns the changes.
func (r *registry) reload(request schema.ReloadRequest, caller endpoint.Caller) (schema.ReloadResponse, error) {
	if err := checkProjectName(request.Name); err != nil {
		return schema.ReloadResponse{}, err
	}
	// Read the manifest while mu is not locked. The project's container can write to the
	// directory of the manifest and could block the read. With mu locked, the blocked read
	// would also block all other operations of the registry.
	r.mu.Lock()
	e, err := r.findLocked(request.Name)
	r.mu.Unlock()
	if err != nil {
		return schema.ReloadResponse{}, err
	}
	parsed, text, err := readManifest(e.path, request.Manifest)
	if err != nil {
		return schema.ReloadResponse{}, r.rejectManifest(request.Name, err, caller)
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries[request.Name] != e || r.stopping {
		return schema.ReloadResponse{}, refuse(schema.CodeInternalError, "another request changed project %s at the same time, or the broker is stopping: try again", request.Name)
	}
	added, removed := compareAllowlists(e.project.Manifest(), parsed)
	if request.DryRun {
		audit.Record(r.audit, schema.ReloadPreviewed{
			EventHeader: audit.Header(schema.EventReloadPreviewed), EventCaller: caller.Event(),
			Project: request.Name, Added: len(added), Removed: len(removed),
		})
	} else {
		r.replaceManifestLocked(e, parsed, text, caller)
	}
	return schema.ReloadResponse{OK: true, Allowlist: parsed.Allowlist(), Added: added, Removed: removed}, nil
}

// rejectManifest records in the audit log that a manifest was rejected, and returns err.
func (r *registry) rejectManifest(name schema.ProjectName, err error, caller endpoint.Caller) error {
	if rejected, ok := errors.AsType[*refusal](err); ok {
		rejected.recorded = true
		audit.Record(r.audit, schema.ManifestRejected{
			EventHeader: audit.Header(schema.EventManifestRejected), EventCaller: caller.Event(), Project: name, Code: rejected.code,
		})
	}
	return err
}
