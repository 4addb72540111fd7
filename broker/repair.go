package broker

import (
	"math/rand/v2"
	"time"

	"github.com/keyhatch/keyhatch/broker/rundir"
)

// checkInterval is the average time between two checks of the sockets and the connections
// of all projects.
const checkInterval = time.Second

// maxRepairDelay is the longest time between two repairs of the same socket. A container
// that deletes its socket again and again must not keep the broker busy.
const maxRepairDelay = time.Minute

// checkProjects creates sockets again that a container has deleted or replaced, and ends
// connections whose clients do not read. It returns when stop is closed.
func checkProjects(r *registry, stop <-chan struct{}) {
	for {
		// A client must not know the time of the next check. It could otherwise end its
		// connections shortly before.
		timer := time.NewTimer(checkInterval/2 + rand.N(checkInterval))
		select {
		case <-stop:
			timer.Stop()
			return
		case <-timer.C:
			checkAll(r)
		}
	}
}

func checkAll(r *registry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return
	}
	for _, e := range r.entries {
		e.endpoint.EndNonReaders()
		if !e.checking {
			e.checking = true
			// Each project has its own goroutine, because its container can block it. The
			// goroutine ends when the kernel lets it, even after a stop.
			go checkSocket(r, e)
		}
	}
}

// checkSocket creates a project's socket again if the container has deleted or replaced it.
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
	now := time.Now()
	sinceRepair := now.Sub(e.repairedAt)
	if r.stopping || id == e.socket.ID || sinceRepair < e.repairDelay {
		return false
	}
	if sinceRepair > 5*maxRepairDelay {
		e.repairDelay = 0
	}
	e.repairedAt, e.repairDelay = now, min(max(2*e.repairDelay, checkInterval), maxRepairDelay)
	return true
}

// repairSocket replaces the listener of a project. Its connections stay open.
func repairSocket(r *registry, e *entry) {
	r.changing.Lock()
	defer r.changing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	name := e.registration.Name
	if r.stopping || r.entries[name] != e {
		return // the project was unregistered, or registered again
	}
	r.log.Warn("a project's socket is missing; creating it again", "project", name)
	socket, err := r.bindUnlocked(e.path)
	if err != nil {
		r.log.Error("cannot create a project's socket again", "project", name, "error", err)
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
