package broker

import (
	"log/slog"
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

// A registry contains the registered projects. If a request to register, reload, or
// unregister a project fails, it does not change the registered projects.
type registry struct {
	dir    *rundir.Dir
	view   keyring.View
	audit  *audit.Log
	log    *slog.Logger
	poller *endpoint.ListenerPoller // of the endpoints of all projects

	requestRate, refusalRate  float64 // limits of each project, per second; 0 means no limit
	brokerVersion, instanceID string
	declarations              manifest.DeclarationCache // has its own mutex; lock mu first if you need both

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
	// unserved contains the stored and declared projects that this broker cannot serve, or
	// does not serve yet. If a stored registration is invalid, it stays in the store until
	// the operator registers, declares, or unregisters its project.
	unserved map[schema.ProjectName]*unservedProject // guarded by mu
	index    projectIndex                            // guarded by mu; contains the projects of entries and unserved
	// notApplied contains the errors of the declarations that could not be applied, by
	// the name of the file without .yaml. Each call of applyDeclarations that can read
	// the directory replaces these errors.
	notApplied map[string]error // guarded by mu
	stopping   bool             // guarded by mu; if true, the registry refuses all changes
	changes    int              // guarded by mu; number of changes of entries and manifests

	closing     sync.WaitGroup // waits for the endpoints of removed projects
	connections atomic.Int64   // the number of connections of all projects
}

// An entry is a registered project. The mutex registry.mu guards socket and all fields after
// socket.
type entry struct {
	project  *project.Project
	endpoint *endpoint.Endpoint
	path     string // path of the project's directory

	socket       rundir.Socket
	registration schema.RegisterRequest // contains the text of the approved manifest
	stored       storedProject
	checking     bool    // whether a goroutine is checking the socket file
	repairs      backoff // limits how often the broker creates the socket again
}

// An unservedProject is a stored or declared project that the broker cannot serve, for
// example because a container blocks its directory. The mutex registry.mu guards all fields
// after parsed.
type unservedProject struct {
	registration schema.RegisterRequest
	restored     bool // whether an earlier broker stored exactly this registration in the descriptor store
	// parsed is nil if the registration is invalid, for example because its manifest violates
	// a rule of this version. The broker then does not try to serve the project.
	parsed *manifest.Manifest

	stored   storedProject
	err      error   // why the broker does not serve the project
	checking bool    // whether a goroutine is trying to serve the project
	attempts backoff // limits how often the broker tries to serve the project
}

// findLocked returns the served project with this name, so that the calling function can change
// it. It returns an error if the broker does not serve the project, or if the broker is stopping,
// because the next broker might not get the change.
func (r *registry) findLocked(name schema.ProjectName) (*entry, error) {
	if r.stopping {
		return nil, errStopping()
	}
	if e := r.entries[name]; e != nil {
		return e, nil
	}
	if r.unserved[name] != nil {
		return nil, refuse(schema.CodeProjectUnknown, "the broker cannot serve project %s at the moment: keyhatchctl doctor shows the reason", name)
	}
	return nil, refuse(schema.CodeProjectUnknown, "%s is not registered", name)
}

// findPathLocked returns the served project at projectPath, or nil.
func (r *registry) findPathLocked(projectPath string) *entry {
	return r.entries[r.index.byPath[projectPath]]
}

// findRegistrationLocked returns the registration of the served or unserved project at
// projectPath, or nil. It ignores an unserved project whose registration is invalid.
func (r *registry) findRegistrationLocked(projectPath string) *schema.RegisterRequest {
	return r.findNameLocked(r.index.byPath[projectPath])
}

// findNameLocked returns the registration of the served or unserved project with a name, or
// nil. It ignores an unserved project whose registration is invalid.
func (r *registry) findNameLocked(name schema.ProjectName) *schema.RegisterRequest {
	if e := r.entries[name]; e != nil {
		return &e.registration
	}
	if u := r.unserved[name]; u != nil && u.parsed != nil {
		return &u.registration
	}
	return nil
}

// addUnservedLocked adds an unserved project. No other project may have its name or path.
func (r *registry) addUnservedLocked(u *unservedProject) {
	r.unserved[u.registration.Name] = u
	r.index.add(u.registration)
}

// removeUnservedLocked removes a project from the unserved projects, but not from the descriptor
// store.
func (r *registry) removeUnservedLocked(u *unservedProject) {
	delete(r.unserved, u.registration.Name)
	r.index.remove(u.registration)
}

func errStopping() error { return refuse(schema.CodeInternalError, "the broker is stopping") }

// status returns the status of each served project, sorted by name, and the status of the
// descriptor store.
func (r *registry) status() ([]schema.ProjectStatus, schema.DescriptorStore) {
	r.mu.Lock()
	defer r.mu.Unlock()
	projects := []schema.ProjectStatus{}
	for name, e := range r.entries {
		m := e.project.Manifest()
		projects = append(projects, schema.ProjectStatus{
			Name: name, ProjectPath: e.registration.ProjectPath, SocketPath: r.dir.NamedSocket(name),
			Declared: e.registration.Declared, AllowlistSize: len(m.Allowlist()),
			Counts: e.project.Counts(), Connections: e.endpoint.Connections(), ManifestSHA256: m.SHA256(),
			AllowUIDs: e.registration.AllowUIDs,
		})
	}
	slices.SortFunc(projects, func(a, b schema.ProjectStatus) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return projects, r.store.state
}

// count returns the number of served projects.
func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.entries)
}

// stop makes the registry refuse all further changes, and returns all served projects.
// The second result is false if stop was called before.
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
