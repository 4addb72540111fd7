package broker

import (
	"errors"

	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// checkNamesLocked returns an error if the name or a dev container ID of a registration
// belongs to a project at another path, or belonged to such a project before. If the broker
// changed the link with this name or ID, a container of the other project would get the
// secrets of the new project after the next start of the container. checkNamesLocked unlocks
// mu for a moment. The broker can begin to stop during this time.
func (r *registry) checkNamesLocked(registration schema.RegisterRequest) error {
	if err := r.checkOtherProjectsLocked(registration); err != nil {
		return err
	}
	r.mu.Unlock() // a container can delay checkLinks
	defer r.mu.Lock()
	return checkLinks(r.dir, registration)
}

// checkOtherProjectsLocked returns an error if a served or unserved project at another path
// has the name or a dev container ID of a registration.
func (r *registry) checkOtherProjectsLocked(registration schema.RegisterRequest) error {
	isOther := func(found *schema.RegisterRequest) bool {
		return found != nil && found.ProjectPath != registration.ProjectPath
	}
	if other := r.findNameLocked(registration.Name); isOther(other) {
		return refuse(schema.CodeProjectExists, "the name %s is in use for the project at %s: choose another name", other.Name, manifest.QuoteWord(other.ProjectPath))
	}
	for _, id := range registration.DevcontainerIDs {
		if other := r.findNameLocked(r.index.byDevcontainer[id]); isOther(other) {
			return refuse(schema.CodeProjectExists, "the dev container ID %s belongs to project %s, and an ID cannot belong to two projects", id, other.Name)
		}
	}
	return nil
}

// checkLinks returns an error if a link with the registration's name, or with one of its dev
// container IDs, leads to the directory of another project.
func checkLinks(dir *rundir.Dir, registration schema.RegisterRequest) error {
	name, path := registration.Name, registration.ProjectPath
	if err := dir.CheckName(name, path); errors.Is(err, rundir.ErrInUse) {
		return refuse(schema.CodeProjectExists, "the name %s was used for another project: choose another name, or remove the link %s if no container mounts the link", name, dir.NameLink(name))
	} else if err != nil {
		return err
	}
	for _, id := range registration.DevcontainerIDs {
		if err := dir.CheckDevcontainer(id, path); errors.Is(err, rundir.ErrInUse) {
			return refuse(schema.CodeProjectExists, "the dev container ID %s was used for another project: remove the link %s if no container mounts the link", id, dir.DevcontainerLink(id))
		} else if err != nil {
			return err
		}
	}
	return nil
}

// linkProjectUnlocked creates the links with the project's name and dev container IDs in the
// runtime directory. It unlocks mu during this time, because a container can delay the
// operation. undo undoes only those changes to links that this call has made.
func (r *registry) linkProjectUnlocked(registration schema.RegisterRequest) (undo func(), err error) {
	r.mu.Unlock()
	if err = checkLinks(r.dir, registration); err == nil {
		undo, err = r.dir.Link(registration.Name, registration.DevcontainerIDs, registration.ProjectPath)
	}
	r.mu.Lock()
	if err == nil && r.stopping {
		undo()
		err = errStopping()
	}
	return undo, err
}
