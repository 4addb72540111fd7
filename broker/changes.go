package broker

import (
	"slices"

	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/project"
	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// addOrChangeLocked adds a project, or changes the project that the broker already serves at the
// same path.
func (r *registry) addOrChangeLocked(registration schema.RegisterRequest, parsed *manifest.Manifest, caller endpoint.Caller) error {
	undo, err := r.linkProjectUnlocked(registration)
	if err != nil {
		return err
	}
	if e := r.findPathLocked(registration.ProjectPath); e != nil {
		err = r.changeProjectLocked(e, registration, parsed, caller)
	} else {
		err = r.addProjectLocked(registration, parsed, caller)
	}
	if err != nil {
		undo()
	}
	return err
}

// addProjectLocked creates the socket of a new project and serves the project.
func (r *registry) addProjectLocked(registration schema.RegisterRequest, parsed *manifest.Manifest, caller endpoint.Caller) error {
	socket, err := r.bindUnlocked(registration.ProjectPath)
	if err != nil {
		return err
	}
	r.serveNewLocked(registration, parsed, socket, storedProject{}, caller)
	return nil
}

// bindUnlocked creates a project's socket. It unlocks mu during this time, because the
// project's container can delay the operation. No other operation can change the projects,
// because changing stays locked. But the broker can begin to stop during this time. Then
// bindUnlocked closes the new socket and returns an error.
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
// project's connections, because a connection can belong to a uid that is no longer
// allowed.
func (r *registry) replaceProjectLocked(e *entry, registration schema.RegisterRequest, parsed *manifest.Manifest, caller endpoint.Caller) error {
	// The new endpoint uses the same socket. The container that mounts the directory of the
	// socket can therefore not delay or prevent the change.
	socket, err := e.socket.Copy()
	if err != nil {
		return err
	}
	// Both endpoints have the same backlog, so stop the old endpoint first. Otherwise the
	// old endpoint could accept a client that connects after the change, and would close
	// this connection.
	r.mu.Unlock() // because StopAccepting can wait until the old endpoint has refused a client
	e.endpoint.StopAccepting()
	r.mu.Lock()
	if r.stopping {
		endpoint.CloseListener(socket.Listener)
		return errStopping()
	}
	if e.registration.Name == registration.Name {
		r.endProjectLocked(e, caller)
		r.serveNewLocked(registration, parsed, socket, e.stored, caller)
		return nil
	}
	// Store the new registration first, because the broker can be killed at every moment.
	// restoreProjects removes the older of two registrations of one path.
	r.serveNewLocked(registration, parsed, socket, storedProject{}, caller)
	r.forgetProjectLocked(e, caller)
	return nil
}

// changeProjectLocked replaces the registration of a project. The connections stay open, unless the
// name or the allowed uids of the project change. changeProjectLocked uses no file in the runtime
// directory, so no container can delay or prevent the change.
func (r *registry) changeProjectLocked(e *entry, registration schema.RegisterRequest, parsed *manifest.Manifest, caller endpoint.Caller) error {
	old := e.registration
	if old.Name != registration.Name || !slices.Equal(old.AllowUIDs, registration.AllowUIDs) {
		return r.replaceProjectLocked(e, registration, parsed, caller)
	}
	r.index.remove(old)
	e.registration = registration
	r.index.add(registration)
	if *old.Manifest != *registration.Manifest {
		r.replaceManifestLocked(e, parsed, *registration.Manifest, caller)
		return nil
	}
	r.storeForRestartLocked(e)
	if old.Declared != registration.Declared || !slices.Equal(old.DevcontainerIDs, registration.DevcontainerIDs) {
		audit.Record(r.audit, schema.ProjectChanged{
			EventHeader: audit.Header(schema.EventProjectChanged), EventCaller: caller.Event(), Project: registration.Name,
		})
	}
	return nil
}

// serveNewLocked serves a project on its listening socket. stored contains the parts of the
// project that are already in the descriptor store.
func (r *registry) serveNewLocked(registration schema.RegisterRequest, parsed *manifest.Manifest, socket rundir.Socket, stored storedProject, caller endpoint.Caller) {
	e := r.addEntryLocked(registration, parsed, socket)
	e.stored = stored
	r.storeForRestartLocked(e)
	e.endpoint.Start()
	audit.Record(r.audit, schema.ProjectRegistered{
		EventHeader: audit.Header(schema.EventProjectRegistered), EventCaller: caller.Event(),
		Project: registration.Name, AllowlistSize: len(parsed.Allowlist()),
	})
}

// addEntryLocked adds a project to the served projects. The socket of the project must already
// listen. The project answers requests only after the calling function has started the endpoint.
func (r *registry) addEntryLocked(registration schema.RegisterRequest, parsed *manifest.Manifest, socket rundir.Socket) *entry {
	r.forgetUnservedLocked(registration.Name, registration.ProjectPath)
	p := project.New(project.Config{
		Name: registration.Name, Manifest: parsed, View: r.view, Audit: r.audit,
		UIDs:        allowedUIDs(registration.AllowUIDs),
		RequestRate: r.requestRate, RefusalRate: r.refusalRate,
		BrokerVersion: r.brokerVersion, InstanceID: r.instanceID,
	})
	e := &entry{
		project: p, registration: registration, path: registration.ProjectPath, socket: socket,
		endpoint: endpoint.New(endpoint.Config{
			Listener: socket.Listener, MaxConnections: schema.MaxProjectConnections, Connects: p.RequestLimit(), Total: &r.connections,
			Poller: r.poller, Serve: p.Serve, Log: r.log,
		}),
	}
	r.entries[registration.Name] = e
	r.index.add(registration)
	r.changes++
	return e
}

// removeProjectLocked ends a project and removes its socket. It unlocks mu while it removes
// the socket, because the project's container can delay the operation.
func (r *registry) removeProjectLocked(e *entry, caller endpoint.Caller) {
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

// endProjectLocked ends a project and its connections, but does not remove the project from the
// descriptor store.
func (r *registry) endProjectLocked(e *entry, caller endpoint.Caller) {
	name := e.registration.Name
	delete(r.entries, name)
	r.index.remove(e.registration)
	r.changes++
	e.project.End()                // answer no more requests from now on, even before Close has closed the connections
	r.closing.Go(e.endpoint.Close) // in another goroutine, because Close can wait for one second
	r.recordUnregistered(name, caller)
}

func (r *registry) recordUnregistered(name schema.ProjectName, caller endpoint.Caller) {
	audit.Record(r.audit, schema.ProjectUnregistered{
		EventHeader: audit.Header(schema.EventProjectUnregistered), EventCaller: caller.Event(), Project: name,
	})
}

func (r *registry) replaceManifestLocked(e *entry, parsed *manifest.Manifest, text string, caller endpoint.Caller) {
	added, removed := compareAllowlists(e.project.Manifest(), parsed)
	e.registration.Manifest = &text
	e.project.ReplaceManifest(parsed)
	r.changes++
	r.storeForRestartLocked(e)
	audit.Record(r.audit, schema.ProjectReloaded{
		EventHeader: audit.Header(schema.EventProjectReloaded), EventCaller: caller.Event(),
		Project: e.registration.Name, Added: len(added), Removed: len(removed),
	})
}

func (r *registry) storeForRestartLocked(e *entry) {
	r.store.save(&e.stored, e.socket.Listener, e.registration)
}

// forgetUnservedLocked removes the unserved projects that have this name or this path, and their
// stored registrations. It does not remove the listener that an earlier broker stored, because
// serveProjects uses or removes each inherited listener.
func (r *registry) forgetUnservedLocked(name schema.ProjectName, projectPath string) {
	for _, unservedName := range []schema.ProjectName{name, r.index.byPath[projectPath]} {
		if u := r.unserved[unservedName]; u != nil {
			r.store.removeRegistration(unservedName, u.stored.sequence)
			r.removeUnservedLocked(u)
		}
	}
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
