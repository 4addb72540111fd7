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
}

// A storedProject records which parts of a project are in the descriptor store.
type storedProject struct {
	listener bool
	sequence uint64 // number of the stored registration; 0 if no registration is stored
}

// newRestartStore checks whether the service manager has a descriptor store with free
// space. notifySocket is empty if there is no service manager.
func newRestartStore(notifySocket string, log *slog.Logger) *restartStore {
	r := &restartStore{fdstore.Open(notifySocket), schema.DescriptorStoreAbsent, log}
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
	previous := stored.sequence
	stored.sequence++
	if err := r.trySave(stored, listener, registration); err != nil {
		r.reportRefused(err)
		r.remove(stored, registration.Name)
		return
	}
	stored.listener = true
	if previous > 0 {
		r.warnIfFailed(registration.Name, r.store.RemoveRegistration(registration.Name, previous))
	}
}

func (r *restartStore) trySave(stored *storedProject, listener *net.UnixListener, registration schema.RegisterRequest) error {
	if !stored.listener {
		if err := r.store.SaveListener(registration.Name, listener); err != nil {
			return err
		}
	}
	if err := r.store.SaveRegistration(registration, stored.sequence); err != nil {
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
	if stored.sequence > 1 { // if a save failed, the previous registration is still stored
		r.removeRegistration(name, stored.sequence-1)
	}
	*stored = storedProject{}
}

func (r *restartStore) removeListener(name schema.ProjectName) {
	r.warnIfFailed(name, r.store.RemoveListener(name))
}

func (r *restartStore) removeRegistration(name schema.ProjectName, sequence uint64) {
	r.warnIfFailed(name, r.store.RemoveRegistration(name, sequence))
}

// removeUnusable removes a file descriptor that the broker cannot use from the descriptor
// store.
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
