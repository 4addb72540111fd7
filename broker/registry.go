package broker

import (
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/keyring"
	"github.com/keyhatch/keyhatch/broker/project"
	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// A registry contains the registered projects. If an operation of the registry fails, the
// operation changes nothing.
type registry struct {
	dir   *rundir.Dir
	view  keyring.View
	audit *audit.Log
	log   *slog.Logger

	requestRate, refusalRate  float64 // limits of each project, per second; 0 means no limit
	brokerVersion, instanceID string

	// changing is locked during an operation that changes projects. A goroutine that needs
	// changing and mu must lock changing first.
	changing sync.Mutex
	// mu is locked while an operation reads or changes the fields that mu guards. mu must not
	// be locked during an operation in a directory that a container mounts. The container can
	// block such an operation. A goroutine that needs mu and a lock of an endpoint, of the
	// keyring, or of the audit log must lock mu first.
	mu      sync.Mutex
	entries map[schema.ProjectName]*entry // guarded by mu
	store   *restartStore                 // guarded by mu
	// unserved contains the stored and declared projects that this broker cannot serve. A
	// stored registration stays in the store until the operator registers or unregisters its
	// project.
	unserved map[schema.ProjectName]*unservedProject // guarded by mu
	// notApplied contains the errors of the declarations that do not change a project, by
	// project name. Each call of applyDeclarations replaces these errors.
	notApplied map[string]error // guarded by mu
	stopping   bool             // guarded by mu; if true, the registry refuses all changes

	closing     sync.WaitGroup // waits for the endpoints of removed projects
	connections atomic.Int64   // the number of connections of all projects
}

// An entry is a registered project. The mutex registry.mu guards socket and all fields after
// socket.
type entry struct {
	project    *project.Project
	endpoint   *endpoint.Endpoint
	path       string // path of the project's directory
	socketPath string

	socket       rundir.Socket
	registration schema.RegisterRequest // contains the text of the approved manifest
	stored       storedProject
	checking     bool // a goroutine is checking the socket file
	repairs      backoff
}

// An unservedProject is a stored or declared project that the broker cannot serve, for
// example because a container blocks its directory. The mutex registry.mu guards all fields
// after parsed.
type unservedProject struct {
	registration schema.RegisterRequest
	restored     bool // an earlier broker stored exactly this registration
	// parsed is nil if the registration is invalid, for example because its manifest violates
	// a rule of this version. The broker then does not try to serve the project.
	parsed *manifest.Manifest

	stored   storedProject
	err      error
	checking bool // a goroutine is trying to serve the project
	attempts backoff
}

// register adds a project. If a project is already registered at the same path and the
// request allows a replacement, register changes that project.
func (r *registry) register(request schema.RegisterRequest, caller endpoint.Caller) (schema.RegisterResponse, error) {
	if err := checkRegistration(request); err != nil {
		return schema.RegisterResponse{}, err
	}
	// Read the manifest before mu is locked. A container that can write to the project's
	// directory could block the read, and with mu locked, this would block all projects.
	parsed, text, manifestErr := readManifest(request.ProjectPath, request.Manifest)
	if len(request.AllowUIDs) == 0 {
		request.AllowUIDs = ownerOf(request.ProjectPath)
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return schema.RegisterResponse{}, errStopping()
	}
	if err := r.checkNameLocked(request.Name, request.ProjectPath); err != nil {
		return schema.RegisterResponse{}, err
	}
	request.Manifest = &text
	registered := r.findPathLocked(request.ProjectPath)
	onlyDeclares := registered != nil && request.Declared && request.Name == registered.registration.Name &&
		compareRegistrations(registered.registration, request) == nil
	if registered != nil && !request.Replace && !onlyDeclares {
		return schema.RegisterResponse{}, refuse(schema.CodeProjectExists, "project %s is already registered: use reload to change its manifest", registered.registration.Name)
	}
	if manifestErr != nil {
		return schema.RegisterResponse{}, r.rejectManifest(request.Name, manifestErr, caller)
	}
	if request.DryRun {
		response := schema.RegisterResponse{OK: true, SocketPath: r.dir.NamedSocket(request.Name)}
		return response, r.checkDevcontainersLocked(request)
	}
	request.Replace = false
	e, err := r.addOrChangeLocked(request, parsed, caller)
	if err != nil {
		return schema.RegisterResponse{}, err
	}
	return schema.RegisterResponse{OK: true, SocketPath: e.socketPath}, nil
}

// checkNameLocked returns an error if a project at another path has the given name, or had
// this name before. It unlocks mu for a moment. The broker can begin to stop during this
// time.
func (r *registry) checkNameLocked(name schema.ProjectName, projectPath string) error {
	if err := r.checkNameIsFreeLocked(name, projectPath); err != nil {
		return err
	}
	r.mu.Unlock() // a container can delay CheckName
	err := r.dir.CheckName(name, projectPath)
	r.mu.Lock()
	return r.describeNameError(name, err)
}

// checkNameIsFreeLocked returns an error if a project at another path has the given name.
func (r *registry) checkNameIsFreeLocked(name schema.ProjectName, projectPath string) error {
	current := ""
	if e := r.entries[name]; e != nil {
		current = e.registration.ProjectPath
	} else if u := r.unserved[name]; u != nil && u.parsed != nil {
		current = u.registration.ProjectPath
	}
	if current != "" && current != projectPath {
		return refuse(schema.CodeProjectExists, "the name %s is in use for the project at %s: choose another name", name, current)
	}
	return nil
}

// describeNameError adds a solution to the error rundir.ErrNameInUse.
func (r *registry) describeNameError(name schema.ProjectName, err error) error {
	if errors.Is(err, rundir.ErrNameInUse) {
		return refuse(schema.CodeProjectExists, "the name %s was used for another project: choose another name, or remove the link %s if no container mounts the link", name, filepath.Dir(r.dir.NamedSocket(name)))
	}
	return err
}

// addOrChangeLocked adds a project, or changes the project that is registered at the same
// path.
func (r *registry) addOrChangeLocked(registration schema.RegisterRequest, parsed *manifest.Manifest, caller endpoint.Caller) (*entry, error) {
	e := r.findPathLocked(registration.ProjectPath)
	switch {
	case e == nil:
		return r.addProjectLocked(registration, parsed, caller)
	case e.registration.Name != registration.Name, !slices.Equal(e.registration.AllowUIDs, registration.AllowUIDs):
		return r.replaceProjectLocked(e, registration, parsed, caller)
	}
	return e, r.changeProjectLocked(e, registration, parsed, caller)
}

// unregister ends a project's connections and removes its socket. It does not remove the
// project's directory. If the project is registered again, a container that still mounts
// the directory can fetch secrets again. unregister also does not remove the link with the
// project's name, so that no other project can use the name (see rundir.Dir.CheckName).
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
		return schema.OKResponse{OK: true}, nil
	}
	e, err := r.findLocked(request.Name)
	if err != nil {
		return schema.OKResponse{}, err
	}
	r.removeProjectLocked(e, caller)
	return schema.OKResponse{OK: true}, nil
}

// inspect returns the registration of a project.
func (r *registry) inspect(request schema.InspectRequest, _ endpoint.Caller) (schema.InspectResponse, error) {
	if err := checkProjectName(request.Name); err != nil {
		return schema.InspectResponse{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[request.Name]
	if e == nil {
		return schema.InspectResponse{}, refuse(schema.CodeProjectUnknown, "%s is not registered", request.Name)
	}
	return schema.InspectResponse{
		OK: true, Name: e.registration.Name, ProjectPath: e.registration.ProjectPath, SocketPath: e.socketPath,
		Manifest: *e.registration.Manifest, AllowUIDs: e.registration.AllowUIDs, DevcontainerIDs: e.registration.DevcontainerIDs,
		Declared: e.registration.Declared,
	}, nil
}

// reload replaces a project's manifest. The project's connections stay open.
func (r *registry) reload(request schema.ReloadRequest, caller endpoint.Caller) (schema.ReloadResponse, error) {
	if err := checkProjectName(request.Name); err != nil {
		return schema.ReloadResponse{}, err
	}
	// Read the manifest while mu is not locked. The project's container can write to the
	// directory of the manifest and could block the read. With mu locked, the blocked read
	// would also block all other projects.
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
		return schema.ReloadResponse{}, refuse(schema.CodeInternalError, "another request changed project %s at the same time: try again", request.Name)
	}
	added, removed := compareAllowlists(e.project.Manifest(), parsed)
	if !request.DryRun {
		r.replaceManifestLocked(e, parsed, text, caller)
	}
	return schema.ReloadResponse{OK: true, Allowlist: parsed.Allowlist(), Added: added, Removed: removed}, nil
}

// addProjectLocked creates the socket of a new project and serves the project.
func (r *registry) addProjectLocked(registration schema.RegisterRequest, parsed *manifest.Manifest, caller endpoint.Caller) (*entry, error) {
	if err := r.linkProjectUnlocked(registration); err != nil {
		return nil, err
	}
	socket, err := r.bindUnlocked(registration.ProjectPath)
	if err != nil {
		return nil, err
	}
	return r.serveNewLocked(registration, parsed, socket, storedProject{}, caller), nil
}

// bindUnlocked creates a project's socket. It unlocks mu during this time, because the
// project's container can delay the operation. No other operation can change the projects,
// because changing stays locked. But the broker can begin to stop during this time.
func (r *registry) bindUnlocked(projectPath string) (rundir.Socket, error) {
	r.mu.Unlock()
	socket, err := r.dir.BindProject(projectPath)
	r.mu.Lock()
	if err == nil && r.stopping {
		endpoint.CloseListener(socket.Listener)
		err = errStopping()
	}
	return socket, err
}

// replaceProjectLocked changes the name or the allowed uids of a project. It closes the
// project's connections, because a connection may belong to a uid that is no longer
// allowed.
func (r *registry) replaceProjectLocked(e *entry, registration schema.RegisterRequest, parsed *manifest.Manifest, caller endpoint.Caller) (*entry, error) {
	if err := r.linkProjectUnlocked(registration); err != nil {
		return nil, err
	}
	// The new endpoint uses the same socket. The container that mounts the directory of the
	// socket can therefore not delay or prevent the change.
	socket, err := e.socket.Copy()
	if err != nil {
		return nil, err
	}
	r.dir.UnlinkDevcontainers(registration.ProjectPath, removedIDs(e.registration, registration))
	if e.registration.Name == registration.Name {
		r.endProjectLocked(e, caller)
		return r.serveNewLocked(registration, parsed, socket, e.stored, caller), nil
	}
	// Store the new registration first, because the broker can be killed at every moment.
	// restoreProjects removes the older of two registrations of one path.
	added := r.serveNewLocked(registration, parsed, socket, storedProject{}, caller)
	r.forgetProjectLocked(e, caller)
	return added, nil
}

// changeProjectLocked replaces the registration of a project. The connections stay open,
// because the name and the allowed uids of the project stay the same.
func (r *registry) changeProjectLocked(e *entry, registration schema.RegisterRequest, parsed *manifest.Manifest, caller endpoint.Caller) error {
	if err := r.linkProjectUnlocked(registration); err != nil {
		return err
	}
	old := e.registration
	r.dir.UnlinkDevcontainers(registration.ProjectPath, removedIDs(old, registration))
	e.registration = registration
	if *old.Manifest != *registration.Manifest {
		r.replaceManifestLocked(e, parsed, *registration.Manifest, caller)
		return nil
	}
	r.storeForRestartLocked(e)
	return nil
}

// removedIDs returns the dev container IDs that the old registration has and the new
// registration does not have.
func removedIDs(old, new schema.RegisterRequest) []schema.DevcontainerID {
	return difference(old.DevcontainerIDs, new.DevcontainerIDs)
}

// checkDevcontainersLocked returns an error if a dev container ID of a registration belongs
// to a registered project at another path. If the broker changed the link with this ID, a dev
// container of one project would get the secrets of the other project.
func (r *registry) checkDevcontainersLocked(registration schema.RegisterRequest) error {
	var others []schema.RegisterRequest
	for _, e := range r.entries {
		others = append(others, e.registration)
	}
	if r.unserved[registration.Name] != nil {
		// At the start, the broker serves many projects at the same time. If two of them have
		// the same ID, serve the one whose name is first in alphabetical order.
		for name, u := range r.unserved {
			if name < registration.Name {
				others = append(others, u.registration)
			}
		}
	}
	for _, other := range others {
		for _, id := range registration.DevcontainerIDs {
			if other.ProjectPath != registration.ProjectPath && slices.Contains(other.DevcontainerIDs, id) {
				return refuse(schema.CodeProjectExists, "the dev container ID %s belongs to project %s, and an ID cannot belong to two projects", id, other.Name)
			}
		}
	}
	return nil
}

// linkProjectUnlocked creates the links to a project's directory in the runtime directory.
// It unlocks mu while it creates the link with the name, for the same reason as bindUnlocked.
// mu stays locked for the links of dev containers, because two projects can have the same ID.
func (r *registry) linkProjectUnlocked(registration schema.RegisterRequest) error {
	if err := r.checkDevcontainersLocked(registration); err != nil {
		return err
	}
	r.mu.Unlock()
	err := r.describeNameError(registration.Name, r.dir.LinkName(registration.Name, registration.ProjectPath))
	r.mu.Lock()
	if err == nil {
		err = r.dir.LinkDevcontainers(registration.ProjectPath, registration.DevcontainerIDs)
	}
	if err == nil && r.stopping {
		err = errStopping()
	}
	return err
}

// serveNewLocked serves a project on its listening socket. stored contains the parts of the
// project that are already in the descriptor store.
func (r *registry) serveNewLocked(registration schema.RegisterRequest, parsed *manifest.Manifest, socket rundir.Socket, stored storedProject, caller endpoint.Caller) *entry {
	e := r.addEntryLocked(registration, parsed, socket)
	e.stored = stored
	r.storeForRestartLocked(e)
	e.endpoint.Start()
	audit.Record(r.audit, schema.ProjectRegistered{
		EventHeader: audit.Header(schema.EventProjectRegistered), EventCaller: caller.Event(),
		Project: registration.Name, AllowlistSize: len(parsed.Allowlist()),
	})
	return e
}

// addEntryLocked adds a project whose socket is already listening. The caller must then
// start the endpoint of the project.
func (r *registry) addEntryLocked(registration schema.RegisterRequest, parsed *manifest.Manifest, socket rundir.Socket) *entry {
	r.forgetUnservedLocked(registration.Name, registration.ProjectPath)
	p := project.New(project.Config{
		Name: registration.Name, Manifest: parsed, View: r.view, Audit: r.audit,
		UIDs:        allowedUIDs(registration.AllowUIDs),
		RequestRate: r.requestRate, RefusalRate: r.refusalRate,
		BrokerVersion: r.brokerVersion, InstanceID: r.instanceID,
	})
	e := &entry{
		project: p, registration: registration, path: registration.ProjectPath, socket: socket, socketPath: r.dir.NamedSocket(registration.Name),
		endpoint: endpoint.New(endpoint.Config{
			Listener: socket.Listener, MaxConnections: schema.MaxProjectConnections, Connects: p.RequestLimit(), Total: &r.connections,
			Serve: p.Serve, Log: r.log,
		}),
	}
	r.entries[registration.Name] = e
	return e
}

// removeProjectLocked ends a project and removes its socket. It unlocks mu while it removes
// the socket, because the project's container can delay the operation.
func (r *registry) removeProjectLocked(e *entry, caller endpoint.Caller) {
	r.dir.UnlinkDevcontainers(e.registration.ProjectPath, e.registration.DevcontainerIDs)
	r.forgetProjectLocked(e, caller)
	r.mu.Unlock()
	defer r.mu.Lock()
	if err := r.dir.RemoveSocket(e.registration.ProjectPath, e.socket.ID); err != nil {
		r.log.Warn("cannot remove the socket of a project", "project", e.registration.Name, "error", err)
	}
}

// forgetProjectLocked ends a project, but does not remove its files in the runtime
// directory.
func (r *registry) forgetProjectLocked(e *entry, caller endpoint.Caller) {
	r.store.remove(&e.stored, e.registration.Name)
	r.endProjectLocked(e, caller)
}

// endProjectLocked ends a project, but does not remove it from the descriptor store.
func (r *registry) endProjectLocked(e *entry, caller endpoint.Caller) {
	name := e.registration.Name
	delete(r.entries, name)
	e.project.End()                // refuse requests at once, because Close takes a moment
	r.closing.Go(e.endpoint.Close) // in another goroutine, because Close waits for clients
	audit.Record(r.audit, schema.ProjectUnregistered{
		EventHeader: audit.Header(schema.EventProjectUnregistered), EventCaller: caller.Event(), Project: name,
	})
}

func (r *registry) replaceManifestLocked(e *entry, parsed *manifest.Manifest, text string, caller endpoint.Caller) {
	added, removed := compareAllowlists(e.project.Manifest(), parsed)
	e.registration.Manifest = &text
	e.project.ReplaceManifest(parsed)
	r.storeForRestartLocked(e)
	audit.Record(r.audit, schema.ProjectReloaded{
		EventHeader: audit.Header(schema.EventProjectReloaded), EventCaller: caller.Event(),
		Project: e.registration.Name, Added: len(added), Removed: len(removed),
	})
}

func (r *registry) storeForRestartLocked(e *entry) {
	r.store.save(&e.stored, e.socket.Listener, e.registration)
}

// forgetUnservedLocked removes the unserved projects that have this name or this path, also
// from the descriptor store.
func (r *registry) forgetUnservedLocked(name schema.ProjectName, projectPath string) {
	for unservedName, u := range r.unserved {
		if unservedName == name || u.registration.ProjectPath == projectPath {
			r.store.remove(&u.stored, unservedName)
			delete(r.unserved, unservedName)
		}
	}
}

// findLocked returns the registered project with a name. It fails if the broker is
// stopping, because a change to the project would be lost at the restart.
func (r *registry) findLocked(name schema.ProjectName) (*entry, error) {
	if r.stopping {
		return nil, errStopping()
	}
	if e := r.entries[name]; e != nil {
		return e, nil
	}
	return nil, refuse(schema.CodeProjectUnknown, "%s is not registered", name)
}

// findPathLocked returns the project that is registered at a path, or nil.
func (r *registry) findPathLocked(projectPath string) *entry {
	for _, e := range r.entries {
		if e.registration.ProjectPath == projectPath {
			return e
		}
	}
	return nil
}

// findRegistrationLocked returns the registration of the served or unserved project at a
// path, or nil.
func (r *registry) findRegistrationLocked(projectPath string) *schema.RegisterRequest {
	if e := r.findPathLocked(projectPath); e != nil {
		return &e.registration
	}
	for _, u := range r.unserved {
		if u.registration.ProjectPath == projectPath && u.parsed != nil {
			return &u.registration
		}
	}
	return nil
}

func errStopping() error { return refuse(schema.CodeInternalError, "the broker is stopping") }

// rejectManifest records in the audit log that a manifest was rejected, and returns err.
func (r *registry) rejectManifest(name schema.ProjectName, err error, caller endpoint.Caller) error {
	if rejected, ok := errors.AsType[*refusal](err); ok {
		audit.Record(r.audit, schema.ManifestRejected{
			EventHeader: audit.Header(schema.EventManifestRejected), EventCaller: caller.Event(), Project: name, Code: rejected.code,
		})
	}
	return err
}

// status returns the status of each project, sorted by name, and the status of the
// descriptor store.
func (r *registry) status() ([]schema.ProjectStatus, schema.DescriptorStore) {
	r.mu.Lock()
	defer r.mu.Unlock()
	projects := []schema.ProjectStatus{}
	for name, e := range r.entries {
		m := e.project.Manifest()
		projects = append(projects, schema.ProjectStatus{
			Name: name, ProjectPath: e.registration.ProjectPath, SocketPath: e.socketPath,
			Declared: e.registration.Declared, AllowlistSize: len(m.Allowlist()),
			Counts: e.project.Counts(), Connections: e.endpoint.Connections(), ManifestSHA256: m.SHA256,
			AllowUIDs: e.registration.AllowUIDs,
		})
	}
	slices.SortFunc(projects, func(a, b schema.ProjectStatus) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return projects, r.store.state
}

// stop makes the registry refuse all further changes, and returns all registered
// projects. The second result is false if stop was called before.
func (r *registry) stop() ([]*entry, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return nil, false
	}
	r.stopping = true
	var entries []*entry
	for _, e := range r.entries {
		entries = append(entries, e)
	}
	return entries, true
}

// compareAllowlists returns the names that only the new manifest allows, and the names
// that only the old manifest allows.
func compareAllowlists(old, new *manifest.Manifest) (added, removed []schema.SecretName) {
	return difference(new.Allowlist(), old.Allowlist()), difference(old.Allowlist(), new.Allowlist())
}

// difference returns the elements of a that are not in b, in the order of a.
func difference[T comparable](a, b []T) []T {
	inB := make(map[T]bool, len(b))
	for _, element := range b {
		inB[element] = true
	}
	return slices.DeleteFunc(append([]T{}, a...), func(element T) bool { return inB[element] })
}
