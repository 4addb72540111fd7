package broker

import (
	"time"
)

// checkInterval is how often the broker checks the sockets and the connections of all
// projects.
const checkInterval = time.Second

// maxRepairDelay is the longest time between two repairs of the same socket. A container
// that deletes its socket again and again must not keep the broker busy.
const maxRepairDelay = time.Minute

// checkProjects creates sockets again that a container has deleted or replaced, and ends
// connections that nobody reads from. It returns when stop is closed.
func checkProjects(r *registry, stop <-chan struct{}) {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			repairSockets(r, time.Now())
			endNonReaders(r)
		}
	}
}

func repairSockets(r *registry, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return
	}
	for name, e := range r.entries {
		sinceRepair := now.Sub(e.repairedAt)
		if r.dir.ProjectSocketID(e.registration.ProjectPath) == e.socketID || sinceRepair < e.repairDelay {
			continue
		}
		if sinceRepair > 5*maxRepairDelay {
			e.repairDelay = 0
		}
		e.repairedAt, e.repairDelay = now, min(max(2*e.repairDelay, checkInterval), maxRepairDelay)
		r.log.Warn("a project's socket is missing; creating it again", "project", name)
		if err := repairSocketLocked(r, e); err != nil {
			r.log.Error("cannot create a project's socket again", "project", name, "error", err)
		}
	}
}

// repairSocketLocked replaces the listener of a project. Its connections stay open.
func repairSocketLocked(r *registry, e *entry) error {
	name, projectPath := e.registration.Name, e.registration.ProjectPath
	listener, err := r.dir.BindProject(projectPath)
	if err != nil {
		return err
	}
	e.endpoint.ReplaceListener(listener)
	e.listener, e.socketID = listener, r.dir.ProjectSocketID(projectPath)
	if e.stored.listener {
		r.store.removeListener(name)
		e.stored.listener = false
		r.storeForRestartLocked(e)
	}
	return nil
}

func endNonReaders(r *registry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		e.endpoint.EndNonReaders()
	}
}
