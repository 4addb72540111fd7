package broker

import (
	"errors"
	"log/slog"
	"net"
	"os"
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

	// mu is held while an operation changes the projects. The locks of endpoints,
	// the keyring, and the audit log are taken after it, never before it.
	mu       sync.Mutex
	entries  map[schema.ProjectName]*entry // guarded by mu
	store    *restartStore                 // guarded by mu
	stopping bool                          // guarded by mu: the registry no longer changes

	closing     sync.WaitGroup // endpoints of removed projects
	connections atomic.Int64   // of all projects
}

// An entry is a registered project. The fields of the second group are guarded by the
// registry's mu.
type entry struct {
	project    *project.Project
	endpoint   *endpoint.Endpoint
	socketPath string

	listener     *net.UnixListener
	socketID     rundir.SocketID        // of the file at socketPath
	registration schema.RegisterRequest // with the text of the approved manifest
	stored       storedProject
	repairedAt   time.Time     // of the last repair of the socket
	repairDelay  time.Duration // from then until the next one
}

// register adds a project. A registered project can only become a declared one,
// if nothing else differs.
func (r *registry) register(request schema.RegisterRequest, caller endpoint.Caller) (schema.RegisterResponse, error) {
	if err := checkRegistration(request); err != nil {
		return schema.RegisterResponse{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return schema.RegisterResponse{}, errStopping()
	}
	if e, exists := r.entries[request.Name]; exists {
		if request.Declared && request.Manifest != nil && *request.Manifest == *e.registration.Manifest && differsOnlyInManifest(request, e.registration) {
			e.registration.Declared = true
			r.storeForRestartLocked(e)
			return schema.RegisterResponse{OK: true, SocketPath: e.socketPath}, nil
		}
		return schema.RegisterResponse{}, refuse(schema.CodeProjectExists, "%s is already registered: use reload to change its manifest", request.Name)
	}
	parsed, text, err := r.approveManifest(request.Name, request.ProjectPath, request.Manifest, caller)
	if err != nil {
		return schema.RegisterResponse{}, err
	}
	request.Manifest = &text
	e, err := r.addProjectLocked(request, parsed, caller)
	if err != nil {
		return schema.RegisterResponse{}, err
	}
	return schema.RegisterResponse{OK: true, SocketPath: e.socketPath}, nil
}

// unregister ends a project's connections and removes its socket. The project's
// directory stays: if the project is registered again, a container that has the
// directory mounted works again.
func (r *registry) unregister(request schema.UnregisterRequest, caller endpoint.Caller) (schema.OKResponse, error) {
	if err := checkProjectName(request.Name); err != nil {
		return schema.OKResponse{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e, err := r.findLocked(request.Name)
	if err != nil {
		return schema.OKResponse{}, err
	}
	r.removeProjectLocked(e, caller)
	return schema.OKResponse{OK: true}, nil
}

// reload replaces a project's manifest. Its connections stay open.
func (r *registry) reload(request schema.ReloadRequest, caller endpoint.Caller) (schema.ReloadResponse, error) {
	if err := checkProjectName(request.Name); err != nil {
		return schema.ReloadResponse{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e, err := r.findLocked(request.Name)
	if err != nil {
		return schema.ReloadResponse{}, err
	}
	parsed, text, err := r.approveManifest(request.Name, e.registration.ProjectPath, request.Manifest, caller)
	if err != nil {
		return schema.ReloadResponse{}, err
	}
	added, removed := compareAllowlists(e.project.Manifest(), parsed)
	if !request.DryRun {
		r.replaceManifestLocked(e, parsed, text, caller)
	}
	return schema.ReloadResponse{OK: true, Allowlist: parsed.Allowlist(), Added: added, Removed: removed}, nil
}

// addProjectLocked binds and serves a new project.
func (r *registry) addProjectLocked(registration schema.RegisterRequest, parsed *manifest.Manifest, caller endpoint.Caller) (*entry, error) {
	listener, err := r.dir.BindProject(registration.Name)
	if err != nil {
		return nil, err
	}
	e, err := r.addEntryLocked(registration, parsed, listener)
	if err != nil {
		discardSocket(listener)
		return nil, err
	}
	r.storeForRestartLocked(e)
	e.endpoint.Start()
	audit.Record(r.audit, schema.ProjectRegistered{
		EventHeader: audit.Header(schema.EventProjectRegistered), EventCaller: caller.Event(),
		Project: registration.Name, AllowlistSize: len(parsed.Allowlist()),
	})
	return e, nil
}

// discardSocket removes the socket of a project that could not be added.
func discardSocket(listener *net.UnixListener) {
	os.Remove(listener.Addr().String())
	endpoint.CloseListener(listener)
}

// addEntryLocked adds a project whose socket listens already. The caller must start
// its endpoint.
func (r *registry) addEntryLocked(registration schema.RegisterRequest, parsed *manifest.Manifest, listener *net.UnixListener) (*entry, error) {
	if err := r.dir.Link(registration.Name, registration.DevcontainerIDs); err != nil {
		return nil, err
	}
	p := project.New(project.Config{
		Name: registration.Name, Manifest: parsed, View: r.view, Audit: r.audit,
		UIDs:        allowedUIDs(registration.ProjectPath, registration.AllowUIDs),
		RequestRate: r.requestRate, RefusalRate: r.refusalRate,
		BrokerVersion: r.brokerVersion, InstanceID: r.instanceID,
	})
	e := &entry{
		project: p, registration: registration,
		listener: listener, socketPath: r.dir.ProjectSocket(registration.Name), socketID: r.dir.ProjectSocketID(registration.Name),
		endpoint: endpoint.New(endpoint.Config{
			Listener: listener, MaxConnections: schema.MaxProjectConnections, Connects: p.RequestLimit(), Total: &r.connections,
			Serve: p.Serve, Log: r.log,
		}),
	}
	r.entries[registration.Name] = e
	return e, nil
}

func (r *registry) removeProjectLocked(e *entry, caller endpoint.Caller) {
	name := e.registration.Name
	delete(r.entries, name)
	r.store.remove(&e.stored, name)
	r.dir.Unlink(name, e.registration.DevcontainerIDs)
	os.Remove(e.socketPath)
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
	r.store.save(&e.stored, e.listener, e.registration)
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

func errStopping() error { return refuse(schema.CodeInternalError, "the broker is stopping") }

// approveManifest is readManifest, and records a manifest that is rejected.
func (r *registry) approveManifest(name schema.ProjectName, projectPath string, text *string, caller endpoint.Caller) (*manifest.Manifest, string, error) {
	parsed, approved, err := readManifest(name, projectPath, text)
	if rejected, ok := errors.AsType[*refusal](err); ok {
		audit.Record(r.audit, schema.ManifestRejected{
			EventHeader: audit.Header(schema.EventManifestRejected), EventCaller: caller.Event(), Project: name, Code: rejected.code,
		})
	}
	return parsed, approved, err
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

// difference returns the names in a that are not in b, in the order of a.
func difference(a, b []schema.SecretName) []schema.SecretName {
	rest := []schema.SecretName{}
	for _, name := range a {
		if !slices.Contains(b, name) {
			rest = append(rest, name)
		}
	}
	return rest
}
