package broker

import (
	"log/slog"
	"net"

	"github.com/keyhatch/keyhatch/broker/fdstore"
	"github.com/keyhatch/keyhatch/schema"
)

// A restartStore stores the listeners and registrations of projects in the descriptor
// store of the service manager. The stored projects survive a restart of the broker. If
// the service manager refuses to store a project, the broker continues to serve it, and
// `keyhatchctl status` shows the problem. A restartStore is not safe for concurrent use.
type restartStore struct {
	store *fdstore.Store
	state schema.DescriptorStore
	log   *slog.Logger
	// sequence is the highest number of a registration so far. The number never decreases,
	// and all projects share it. So the newest of several registrations has the highest
	// number, even if their names differ or if the removal of an older registration failed.
	sequence uint64
}

// A storedProject records which parts of a project are in the descriptor store.
type storedProject struct {
	listener bool
	sequence uint64 // number of the stored registration; 0 if no registration is stored
}

// newRestartStore checks whether the service manager has a descriptor store with free
// space. notifySocket is empty if there is no service manager.
func newRestartStore(notifySocket string, log *slog.Logger) *restartStore {
	r := &restartStore{store: fdstore.Open(notifySocket), state: schema.DescriptorStoreAbsent, log: log}
	if notifySocket == "" {
		log.Info("the broker was started without a service manager, so only declared projects are served after a restart")
		return r
	}
	r.state = schema.DescriptorStoreKept
	if err := r.store.Verify(); err != nil {
		r.reportRefused(err)
	}
	return r
}

func (r *restartStore) reportRefused(err error) {
	r.state = schema.DescriptorStoreRefused
	r.log.Warn("the service manager cannot store projects, so only declared projects are served after a restart of the broker", "error", err)
}

// save stores a project's listener, and stores its registration with the next sequence
// number. If the descriptor store refuses the listener or the registration, save removes
// the project from the store. Otherwise the next broker would serve an older registration,
// with an older manifest.
func (r *restartStore) save(stored *storedProject, listener *net.UnixListener, registration schema.RegisterRequest) {
	if r.state == schema.DescriptorStoreAbsent {
		return
	}
	r.sequence++
	saved := storedProject{listener: true, sequence: r.sequence}
	if err := r.trySave(stored.listener, listener, registration); err != nil {
		r.reportRefused(err)
		r.remove(&saved, registration.Name)
		saved = storedProject{}
	}
	if stored.sequence > 0 {
		r.removeRegistration(registration.Name, stored.sequence)
	}
	*stored = saved
}

func (r *restartStore) trySave(hasListener bool, listener *net.UnixListener, registration schema.RegisterRequest) error {
	if !hasListener {
		if err := r.store.SaveListener(registration.Name, listener); err != nil {
			return err
		}
	}
	if err := r.store.SaveRegistration(registration, r.sequence); err != nil {
		return err
	}
	return r.store.Verify()
}

// remove removes a project from the descriptor store.
func (r *restartStore) remove(stored *storedProject, name schema.ProjectName) {
	if r.state == schema.DescriptorStoreAbsent || stored.sequence == 0 {
		return
	}
	r.removeListener(name)
	r.removeRegistration(name, stored.sequence)
	*stored = storedProject{}
}

func (r *restartStore) removeListener(name schema.ProjectName) {
	r.warnIfFailed(name, r.store.RemoveListener(name))
}

func (r *restartStore) removeRegistration(name schema.ProjectName, sequence uint64) {
	r.warnIfFailed(name, r.store.RemoveRegistration(name, sequence))
}

// removeUnusable removes an unusable file descriptor from the descriptor store.
func (r *restartStore) removeUnusable(name string) {
	r.log.Warn("removing an unusable file descriptor from the service manager's descriptor store", "name", name)
	if err := r.store.Remove(name); err != nil {
		r.log.Warn("cannot remove a file descriptor from the service manager's descriptor store", "name", name, "error", err)
	}
}

// warnIfFailed logs a warning if removing a project's file descriptor from the descriptor
// store failed.
func (r *restartStore) warnIfFailed(name schema.ProjectName, err error) {
	if err != nil {
		r.log.Warn("cannot remove a file descriptor from the service manager's descriptor store", "project", name, "error", err)
	}
}
