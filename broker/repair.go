package broker

import (
	"runtime/debug"
	"time"

	"github.com/keyhatch/keyhatch/broker/rundir"
)

// checkProjects checks all projects once per second. If a container has deleted or replaced
// its socket file, checkProjects creates the socket again. checkProjects also tries again to
// serve the unserved projects. It returns when stop is closed.
//
// One to two seconds after the last change of a project, checkProjects returns unused
// memory to the kernel. Parsing many manifests needs much memory for a short time. Later,
// the broker allocates so little memory that the garbage collector might not run for hours.
func checkProjects(r *registry, stop <-chan struct{}) {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	seen, released := 0, 0
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		checkAll(r)
		r.mu.Lock()
		changes := r.changes
		r.mu.Unlock()
		if changes == seen && changes != released {
			debug.FreeOSMemory()
			released = changes
		}
		seen = changes
	}
}

func checkAll(r *registry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return
	}
	for _, e := range r.entries {
		if !e.checking && !r.dir.IsIntact(e.socket) {
			e.checking = true
			// Use a goroutine for each project, because the project's container can delay the
			// check. A stop of the broker does not wait for the goroutine.
			go checkSocket(r, e)
		}
	}
	for _, u := range r.unserved {
		if u.parsed != nil && !u.checking {
			u.checking = true
			go retryProject(r, u) // in its own goroutine, because the container can delay an attempt to serve the project
		}
	}
}

// retryProject tries again to serve a project, unless the directory of the project is still
// blocked. retryProject checks the directory first, because other changes of projects must
// wait during an attempt.
func retryProject(r *registry, u *unservedProject) {
	_, err := r.dir.ProjectSocketID(u.registration.ProjectPath)
	r.mu.Lock()
	mustRetry := err == nil && u.attempts.mayTry(time.Now())
	r.mu.Unlock()
	if mustRetry {
		r.changing.Lock()
		r.mu.Lock()
		isCurrent := !r.stopping && r.unserved[u.registration.Name] == u
		r.mu.Unlock()
		if isCurrent {
			serveProject(r, u, nil)
		}
		r.changing.Unlock()
	}
	r.mu.Lock()
	u.checking = false
	r.mu.Unlock()
}

// checkSocket creates a project's socket again if a container has deleted or replaced the
// socket file, and if e.repairs allows another attempt now.
func checkSocket(r *registry, e *entry) {
	id, err := r.dir.ProjectSocketID(e.path)
	if err == nil && mustRepair(r, e, id) {
		repairSocket(r, e)
	}
	r.mu.Lock()
	e.checking = false
	r.mu.Unlock()
}

func mustRepair(r *registry, e *entry, id rundir.SocketID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.stopping && id != e.socket.ID && e.repairs.mayTry(time.Now())
}

// repairSocket creates a new socket for a project and listens on it. The open connections
// of the project stay open.
func repairSocket(r *registry, e *entry) {
	r.changing.Lock()
	defer r.changing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	name := e.registration.Name
	if r.stopping || r.entries[name] != e {
		return // the broker is stopping, or the project was unregistered or replaced
	}
	r.log.Warn("the socket file of a project is missing or was replaced; the broker creates the socket again", "project", name)
	socket, err := r.bindUnlocked(e.path)
	if err != nil {
		r.log.Error("cannot create a new socket for a project", "project", name, "error", err)
		return
	}
	e.endpoint.ReplaceListener(socket.Listener)
	e.socket = socket
	if e.stored.listener {
		r.store.removeListener(name)
		e.stored.listener = false
		r.storeForRestartLocked(e)
	}
}
