package broker

import (
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/keyring"
	"github.com/keyhatch/keyhatch/broker/project"
	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// A registry holds the registered projects. Its operations either succeed or
// change nothing.
type registry struct {
	dir   *rundir.Dir
	view  keyring.View
	audit *audit.Log
	log   *slog.Logger

	requestRate, refusalRate  float64 // of each project, per second; 0: no limit
	brokerVersion, instanceID string

	// changing is held during an operation that changes projects. It is taken before mu.
	changing sync.Mutex
	// mu is held while an operation reads or changes the fields below. It is never held
	// during an operation in a directory that a container mounts, because the container
	// can block such an operation. The locks of endpoints, the keyring, and the audit log
	// are taken after mu, never before mu.
	mu      sync.Mutex
	entries map[schema.ProjectName]*entry // guarded by mu
	store   *restartStore                 // guarded by mu
	// rejected are stored registrations that this broker does not serve. They stay in the
	// store until the operator registers or unregisters the project.
	rejected map[schema.ProjectName]rejectedProject // guarded by mu
	// notApplied are the errors of declarations when they were last applied.
	notApplied map[string]error // guarded by mu
	stopping   bool             // guarded by mu: the registry no longer changes

	closing     sync.WaitGroup // endpoints of removed projects
	connections atomic.Int64   // of all projects
}

// An entry is a registered project. The fields of the second group are guarded by the
// registry's mu.
type entry struct {
	project    *project.Project
	endpoint   *endpoint.Endpoint
	path       string // of the project's directory
	socketPath string

	socket       rundir.Socket
	registration schema.RegisterRequest // with the text of the approved manifest
	stored       storedProject
	checking     bool          // a goroutine checks the socket
	repairedAt   time.Time     // of the last repair of the socket
	repairDelay  time.Duration // from then until the next one
}

// A rejectedProject is a stored registration that the broker cannot serve, for example
// because its manifest violates a rule of this version.
type rejectedProject struct {
	projectPath string
	stored      storedProject
	err         error
}

// register adds a project. If the request allows it, register changes the project that is
// registered at the same path.
func (r *registry) register(request schema.RegisterRequest, caller endpoint.Caller) (schema.RegisterResponse, error) {
	if err := checkRegistration(request); err != nil {
		return schema.RegisterResponse{}, err
	}
	// Without a lock, see reload.
	parsed, text, manifestErr := readManifest(request.ProjectPath, request.Manifest)
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
		return schema.RegisterResponse{}, refuse(schema.CodeProjectExists, "%s is already registered: use reload to change its manifest", registered.registration.Name)
	}
	if manifestErr != nil {
		return schema.RegisterResponse{}, r.rejectManifest(request.Name, manifestErr, caller)
	}
	request.Replace = false
	e, err := r.addOrChangeLocked(request, parsed, caller)
	if err != nil {
		return schema.RegisterResponse{}, err
	}
	return schema.RegisterResponse{OK: true, SocketPath: e.socketPath}, nil
}

// checkNameLocked refuses a name that belongs to another path.
func (r *registry) checkNameLocked(name schema.ProjectName, projectPath string) error {
	if e := r.entries[name]; e != nil && e.registration.ProjectPath != projectPath {
		return refuse(schema.CodeProjectExists, "the name %s is in use for another project, %s: choose another name", name, e.registration.ProjectPath)
	}
	err := r.dir.CheckName(name, projectPath)
	if errors.Is(err, rundir.ErrNameInUse) {
		return refuse(schema.CodeProjectExists, "the name %s was used for another project: choose another name, or remove the link %s if no container mounts this path", name, filepath.Dir(r.dir.NamedSocket(name)))
	}
	return err
}

// addOrChangeLocked serves a project as its registration describes it.
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

// unregister ends a project's connections and removes its socket. The project's
// directory stays: if the project is registered again, a container that has the
// directory mounted works again. The link with the project's name stays too, see
// rundir.CheckName.
func (r *registry) unregister(request schema.UnregisterRequest, caller endpoint.Caller) (schema.OKResponse, error) {
	if err := checkProjectName(request.Name); err != nil {
		return schema.OKResponse{}, err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if rejected, ok := r.rejected[request.Name]; ok && !r.stopping {
		r.forgetRejectedLocked(request.Name, rejected.projectPath)
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

// reload replaces a project's manifest. Its connections stay open.
func (r *registry) reload(request schema.ReloadRequest, caller endpoint.Caller) (schema.ReloadResponse, error) {
	if err := checkProjectName(request.Name); err != nil {
		return schema.ReloadResponse{}, err
	}
	// Read the manifest without a lock: the container can write to that directory, and could
	// block the lock.
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
		return schema.ReloadResponse{}, refuse(schema.CodeInternalError, "%s was changed at the same time: try again", request.Name)
	}
	added, removed := compareAllowlists(e.project.Manifest(), parsed)
	if !request.DryRun {
		r.replaceManifestLocked(e, parsed, text, caller)
	}
	return schema.ReloadResponse{OK: true, Allowlist: parsed.Allowlist(), Added: added, Removed: removed}, nil
}

// addProjectLocked binds and serves a new project.
func (r *registry) addProjectLocked(registration schema.RegisterRequest, parsed *manifest.Manifest, caller endpoint.Caller) (*entry, error) {
	if err := r.linkProjectLocked(registration); err != nil {
		return nil, err
	}
	socket, err := r.bindUnlocked(registration.ProjectPath)
	if err != nil {
		return nil, err
	}
	return r.serveNewLocked(registration, parsed, socket, caller), nil
}

// bindUnlocked creates a socket. It releases mu in the meantime. Because changing is held,
// no other operation changes the projects, but the broker can begin to stop.
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

// replaceProjectLocked serves a project under another name or for other uids. It closes
// the project's connections, because they may belong to a uid that is no longer allowed.
func (r *registry) replaceProjectLocked(e *entry, registration schema.RegisterRequest, parsed *manifest.Manifest, caller endpoint.Caller) (*entry, error) {
	if err := r.linkProjectLocked(registration); err != nil {
		return nil, err
	}
	// If this fails, the old socket is created again, as after a deletion by a container.
	socket, err := r.bindUnlocked(registration.ProjectPath)
	if err != nil {
		return nil, err
	}
	r.forgetProjectLocked(e, caller)
	r.dir.UnlinkDevcontainers(registration.ProjectPath, removedIDs(e.registration, registration))
	return r.serveNewLocked(registration, parsed, socket, caller), nil
}

// changeProjectLocked changes everything in a registration that does not affect open
// connections.
func (r *registry) changeProjectLocked(e *entry, registration schema.RegisterRequest, parsed *manifest.Manifest, caller endpoint.Caller) error {
	if err := r.linkProjectLocked(registration); err != nil {
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

// removedIDs returns the dev container IDs that only the old registration has.
func removedIDs(old, new schema.RegisterRequest) []schema.DevcontainerID {
	return difference(old.DevcontainerIDs, new.DevcontainerIDs)
}

// linkProjectLocked creates the links to the directory of a project.
func (r *registry) linkProjectLocked(registration schema.RegisterRequest) error {
	if err := r.dir.LinkName(registration.Name, registration.ProjectPath); err != nil {
		return err
	}
	return r.dir.LinkDevcontainers(registration.ProjectPath, registration.DevcontainerIDs)
}

func (r *registry) serveNewLocked(registration schema.RegisterRequest, parsed *manifest.Manifest, socket rundir.Socket, caller endpoint.Caller) *entry {
	e := r.addEntryLocked(registration, parsed, socket)
	r.storeForRestartLocked(e)
	e.endpoint.Start()
	audit.Record(r.audit, schema.ProjectRegistered{
		EventHeader: audit.Header(schema.EventProjectRegistered), EventCaller: caller.Event(),
		Project: registration.Name, AllowlistSize: len(parsed.Allowlist()),
	})
	return e
}

// addEntryLocked adds a project whose socket listens already. The caller must start
// its endpoint.
func (r *registry) addEntryLocked(registration schema.RegisterRequest, parsed *manifest.Manifest, socket rundir.Socket) *entry {
	r.forgetRejectedLocked(registration.Name, registration.ProjectPath)
	p := project.New(project.Config{
		Name: registration.Name, Manifest: parsed, View: r.view, Audit: r.audit,
		UIDs:        allowedUIDs(registration.ProjectPath, registration.AllowUIDs),
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

// removeProjectLocked releases mu while it removes the socket, see bindUnlocked.
func (r *registry) removeProjectLocked(e *entry, caller endpoint.Caller) {
	r.dir.UnlinkDevcontainers(e.registration.ProjectPath, e.registration.DevcontainerIDs)
	r.forgetProjectLocked(e, caller)
	r.mu.Unlock()
	defer r.mu.Lock()
	if err := r.dir.RemoveSocket(e.registration.ProjectPath, e.socket.ID); err != nil {
		r.log.Warn("cannot remove the socket of a project", "project", e.registration.Name, "error", err)
	}
}

// forgetProjectLocked ends a project, but leaves its files in the runtime directory.
func (r *registry) forgetProjectLocked(e *entry, caller endpoint.Caller) {
	name := e.registration.Name
	delete(r.entries, name)
	r.store.remove(&e.stored, name)
	e.project.End()                // the end of the connections takes a moment
	r.closing.Go(e.endpoint.Close) // not here: Close waits for clients
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

// forgetRejectedLocked removes the rejected registrations of a name and of a path from
// the store.
func (r *registry) forgetRejectedLocked(name schema.ProjectName, projectPath string) {
	for rejectedName, rejected := range r.rejected {
		if rejectedName == name || rejected.projectPath == projectPath {
			r.store.remove(&rejected.stored, rejectedName)
			delete(r.rejected, rejectedName)
		}
	}
}

// findLocked returns a registered project. It fails if the broker is stopping,
// because a change would no longer reach the next broker.
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

func errStopping() error { return refuse(schema.CodeInternalError, "the broker is stopping") }

// rejectManifest records that a manifest was rejected, and returns the error.
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
		})
	}
	slices.SortFunc(projects, func(a, b schema.ProjectStatus) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return projects, r.store.state
}

// stop makes the registry refuse all further changes, and returns its projects. It
// returns false if the registry was already stopped.
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

// compareAllowlists returns the names that only the new, and only the old manifest
// allows.
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
