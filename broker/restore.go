package broker

import (
	"cmp"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/broker/fdstore"
	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// errStarting is the error of a project that the broker has not tried to serve yet.
var errStarting = errors.New("the broker is starting")

// restoreProjects adds the projects that an earlier broker stored in the descriptor store to
// the unserved projects. Call serveProjects afterwards.
func restoreProjects(r *registry, in *fdstore.Inherited) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range in.Unusable {
		r.store.removeUnusable(name)
	}
	newestFirst := slices.SortedFunc(maps.Values(in.Registrations), func(a, b fdstore.Registration) int { return cmp.Compare(b.Sequence, a.Sequence) })
	restored := map[string]bool{} // the paths of the projects that were already restored
	for _, registration := range newestFirst {
		name, path := registration.Request.Name, registration.Request.ProjectPath
		r.store.sequence = max(r.store.sequence, registration.Sequence)
		if restored[path] { // an earlier broker was killed while it renamed the project
			r.store.removeRegistration(name, registration.Sequence)
			continue
		}
		restored[path] = true
		u := &unservedProject{registration: registration.Request, restored: true, stored: storedProject{sequence: registration.Sequence}, err: errStarting}
		err := checkRegistration(registration.Request)
		if err == nil {
			u.parsed, err = manifest.Parse([]byte(*registration.Request.Manifest))
		}
		if err != nil {
			r.log.Error("cannot restore a project", "project", name, "error", describeWithoutSecrets(err))
			u.parsed, u.err = nil, err
		}
		r.addUnservedLocked(u)
	}
}

// serveProjects tries to serve each unserved project that has a valid registration, on its stored
// listener or on a new socket. It removes every other listener from the descriptor store and closes
// it. It tries all projects at the same time, because a container can delay the operations in the
// directory of its project. serveProjects returns when all attempts have ended. Call storeProjects
// afterwards. r.changing must be locked, and r.mu must not be locked.
func serveProjects(r *registry, listeners map[schema.ProjectName]*net.UnixListener) {
	var wg sync.WaitGroup
	r.mu.Lock()
	r.store.beginBatch()
	for name, u := range r.unserved {
		if u.parsed != nil {
			wg.Go(func() { serveProject(r, u, listeners[name]) })
		}
	}
	for name, listener := range listeners {
		if u := r.unserved[name]; u == nil || u.parsed == nil {
			wg.Go(func() { forgetListener(r, name, listener) })
		}
	}
	r.mu.Unlock()
	wg.Wait()
}

// storeProjects stores the projects that serveProjects has served, so that they survive a restart.
// r.changing must still be locked, so that no project changes. r.mu must not be locked, because the
// service manager needs about a second to store 1,000 projects.
func storeProjects(r *registry) {
	r.mu.Lock()
	batch := r.store.endBatch()
	r.mu.Unlock()
	err := r.store.sendBatch(batch)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.store.finishBatch(batch, err)
}

// serveProject tries to serve an unserved project on its stored listener. If there is no
// listener, or if the socket file is missing or was replaced, serveProject creates a new
// socket. If this fails, the project stays unserved, and checkProjects tries again.
// r.changing must be locked, and r.mu must not be locked.
func serveProject(r *registry, u *unservedProject, listener *net.UnixListener) {
	name, path := u.registration.Name, u.registration.ProjectPath
	var socket rundir.Socket
	if listener != nil {
		var reachable bool
		if socket, reachable = r.dir.FindSocket(path, listener); !reachable {
			r.log.Warn("the socket file of a project is missing or was replaced; the broker creates the socket again", "project", name)
			forgetListener(r, name, listener)
			listener = nil
		}
	}
	r.mu.Lock()
	_, err := r.linkProjectUnlocked(u.registration)
	r.mu.Unlock()
	if err == nil && listener == nil {
		socket, err = r.dir.BindProject(path)
	}
	if err != nil && listener != nil {
		forgetListener(r, name, listener)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && r.stopping {
		endpoint.CloseListener(socket.Listener)
		return
	}
	if err != nil {
		r.log.Error("cannot serve a project; the broker will try again", "project", name, "error", err)
		u.err = err
		return
	}
	r.removeUnservedLocked(u)
	stored := storedProject{listener: listener != nil, sequence: u.stored.sequence}
	if !u.restored {
		r.serveNewLocked(u.registration, u.parsed, socket, stored, endpoint.Self())
		return
	}
	e := r.addEntryLocked(u.registration, u.parsed, socket)
	e.stored = stored
	if !stored.listener {
		r.storeForRestartLocked(e)
	}
	e.endpoint.Start()
}

// forgetListener removes the listener of a project from the descriptor store, and closes
// it.
func forgetListener(r *registry, name schema.ProjectName, listener *net.UnixListener) {
	r.mu.Lock()
	r.store.removeListener(name)
	r.mu.Unlock()
	endpoint.CloseListener(listener)
}
