package broker

import (
	"cmp"
	"maps"
	"slices"

	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/fdstore"
	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/manifest"
)

// restoreProjects serves the projects that an earlier broker stored in the descriptor
// store. If the broker cannot restore a project, the project stays in the store, and
// `keyhatchctl status` shows the problem.
func restoreProjects(r *registry, in *fdstore.Inherited) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range in.Unusable {
		r.store.removeUnusable(name)
	}
	newestFirst := slices.SortedFunc(maps.Values(in.Registrations), func(a, b fdstore.Registration) int { return cmp.Compare(b.Sequence, a.Sequence) })
	restored := map[string]bool{} // by project path
	for _, registration := range newestFirst {
		name, path := registration.Request.Name, registration.Request.ProjectPath
		r.store.sequence = max(r.store.sequence, registration.Sequence)
		if restored[path] { // an earlier broker was killed while it renamed the project
			r.store.removeRegistration(name, registration.Sequence)
			continue
		}
		restored[path] = true
		if err := restoreProjectLocked(r, in, registration); err != nil {
			r.log.Error("cannot restore a project", "project", name, "error", err)
			r.rejected[name] = rejectedProject{path, storedProject{sequence: registration.Sequence}, err}
		}
	}
	for name, listener := range in.Listeners {
		if r.entries[name] == nil {
			r.store.removeListener(name)
			endpoint.CloseListener(listener)
		}
	}
}

// restoreProjectLocked serves one project on its stored listener. If the socket file is
// missing or was replaced, restoreProjectLocked creates a new socket.
func restoreProjectLocked(r *registry, in *fdstore.Inherited, stored fdstore.Registration) error {
	registration := stored.Request
	if err := checkRegistration(registration); err != nil {
		return err
	}
	parsed, err := manifest.Parse([]byte(*registration.Manifest))
	if err != nil {
		return err
	}
	var socket rundir.Socket
	inherited := false
	if listener := in.Listeners[registration.Name]; listener != nil {
		if socket, inherited = r.dir.FindSocket(registration.ProjectPath, listener); !inherited {
			r.log.Warn("the socket file of a project is missing or was replaced; the broker creates the socket again", "project", registration.Name)
			delete(in.Listeners, registration.Name)
			r.store.removeListener(registration.Name)
			endpoint.CloseListener(listener)
		}
	}
	if err := r.linkProjectUnlocked(registration); err != nil {
		return err
	}
	if !inherited {
		if socket, err = r.dir.BindProject(registration.ProjectPath); err != nil {
			return err
		}
	}
	e := r.addEntryLocked(registration, parsed, socket)
	e.stored = storedProject{listener: inherited, sequence: stored.Sequence}
	if !inherited {
		r.storeForRestartLocked(e)
	}
	e.endpoint.Start()
	return nil
}
