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
	// If batching is true, save does not store the projects. It appends them to batch.
	batching bool
	batch    []unverifiedProject
}

// An unverifiedProject is a project that is not in the descriptor store yet, or that the service
// manager has not confirmed yet.
type unverifiedProject struct {
	stored       *storedProject // the parts of the project that were already stored; finish updates it
	listener     *net.UnixListener
	registration schema.RegisterRequest
	sequence     uint64 // number of registration
}

// A storedProject records which parts of a project are in the descriptor store.
type storedProject struct {
	listener bool   // whether the listener is stored
	sequence uint64 // number of the stored registration; 0 if no registration is stored
}

// newRestartStore returns a restartStore, and checks whether the descriptor store of the service
// manager has room for a file descriptor. notifySocket is empty if there is no service manager.
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
	r.log.Warn("the service manager does not store all projects; after a restart, the broker might serve only the declared projects", "error", err)
}

// save stores a project's listener, unless it is already stored, and stores the registration with
// the next sequence number. If the descriptor store refuses the listener or the registration,
// save removes the project from the store (in a batch, finishBatch does this). Otherwise the next
// broker would serve an older registration, with an older manifest.
func (r *restartStore) save(stored *storedProject, listener *net.UnixListener, registration schema.RegisterRequest) {
	if r.state == schema.DescriptorStoreAbsent {
		return
	}
	r.sequence++
	u := unverifiedProject{stored: stored, listener: listener, registration: registration, sequence: r.sequence}
	if r.batching {
		r.batch = append(r.batch, u)
		return
	}
	err := r.send(u)
	if err == nil {
		err = r.store.Verify()
	}
	r.finish(u, err)
}

// send sends a project to the store. The service manager does not confirm that it has stored the
// project, so call Verify afterwards.
func (r *restartStore) send(u unverifiedProject) error {
	if !u.stored.listener {
		if err := r.store.SaveListener(u.registration.Name, u.listener); err != nil {
			return err
		}
	}
	return r.store.SaveRegistration(u.registration, u.sequence)
}

// finish updates u.stored after a check of the store. err is nil if the project is stored.
func (r *restartStore) finish(u unverifiedProject, err error) {
	saved := storedProject{listener: true, sequence: u.sequence}
	if err != nil {
		r.reportRefused(err)
		r.remove(&saved, u.registration.Name)
	}
	r.removeRegistration(u.registration.Name, u.stored.sequence)
	*u.stored = saved
}

// beginBatch makes save collect projects without storing them, until endBatch is called. The
// service manager needs some time for each check, so one check for many projects is faster.
func (r *restartStore) beginBatch() { r.batching = true }

// endBatch returns the projects since beginBatch. Call sendBatch and then finishBatch with these
// projects.
func (r *restartStore) endBatch() []unverifiedProject {
	batch := r.batch
	r.batching, r.batch = false, nil
	return batch
}

// sendBatch sends the projects of a batch to the store, and returns an error unless the service
// manager has stored all of them. It uses only fields that never change.
func (r *restartStore) sendBatch(batch []unverifiedProject) error {
	if len(batch) == 0 {
		return nil
	}
	for _, u := range batch {
		if err := r.send(u); err != nil {
			return err
		}
	}
	return r.store.Verify()
}

// finishBatch finishes a batch. err is the result of sendBatch. If err is not nil, finishBatch
// stores each project again and checks each one, because the check of a batch does not show which
// projects were refused.
func (r *restartStore) finishBatch(batch []unverifiedProject, err error) {
	if err == nil {
		for _, u := range batch {
			r.finish(u, nil)
		}
		return
	}
	for _, u := range batch { // remove all projects of the batch first, because each check needs room for its pipe in the store
		if !u.stored.listener {
			r.removeListener(u.registration.Name)
		}
		r.removeRegistration(u.registration.Name, u.sequence)
	}
	for _, u := range batch {
		r.save(u.stored, u.listener, u.registration)
	}
}

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

// removeRegistration removes the registration with a sequence number. If sequence is 0, no
// registration is stored, and removeRegistration does nothing.
func (r *restartStore) removeRegistration(name schema.ProjectName, sequence uint64) {
	if r.state == schema.DescriptorStoreAbsent || sequence == 0 {
		return
	}
	r.warnIfFailed(name, r.store.RemoveRegistration(sequence))
}

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
