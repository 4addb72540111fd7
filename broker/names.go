package broker

import (
	"errors"
	"path/filepath"
	"slices"

	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/schema"
)

// checkNameLocked returns an error if a project at another path has the given name, or had
// this name before. It unlocks mu for a moment. The broker can begin to stop during this
// time.
func (r *registry) checkNameLocked(name schema.ProjectName, projectPath string) error {
	if err := r.checkNameIsFreeLocked(name, projectPath); err != nil {
		return err
	}
	r.mu.Unlock() // a container can delay CheckName
	err := r.dir.CheckName(name, projectPath)
	r.mu.Lock()
	return r.describeNameError(name, err)
}

// checkNameIsFreeLocked returns an error if a project at another path has the given name.
func (r *registry) checkNameIsFreeLocked(name schema.ProjectName, projectPath string) error {
	current := ""
	if e := r.entries[name]; e != nil {
		current = e.registration.ProjectPath
	} else if u := r.unserved[name]; u != nil && u.parsed != nil {
		current = u.registration.ProjectPath
	}
	if current != "" && current != projectPath {
		return refuse(schema.CodeProjectExists, "the name %s is in use for the project at %s: choose another name", name, current)
	}
	return nil
}

// describeNameError adds a solution to the error rundir.ErrNameInUse.
func (r *registry) describeNameError(name schema.ProjectName, err error) error {
	if errors.Is(err, rundir.ErrNameInUse) {
		return refuse(schema.CodeProjectExists, "the name %s was used for another project: choose another name, or remove the link %s if no container mounts the link", name, filepath.Dir(r.dir.NamedSocket(name)))
	}
	return err
}

// checkDevcontainersLocked returns an error if a dev container ID of a registration belongs
// to a registered project at another path. If the broker changed the link with this ID, a dev
// container of one project would get the secrets of the other project.
func (r *registry) checkDevcontainersLocked(registration schema.RegisterRequest) error {
	var others []schema.RegisterRequest
	for _, e := range r.entries {
		others = append(others, e.registration)
	}
	if r.unserved[registration.Name] != nil {
		// At the start, the broker serves many projects at the same time. If two of them have
		// the same ID, serve the one whose name is first in alphabetical order.
		for name, u := range r.unserved {
			if name < registration.Name {
				others = append(others, u.registration)
			}
		}
	}
	for _, other := range others {
		for _, id := range registration.DevcontainerIDs {
			if other.ProjectPath != registration.ProjectPath && slices.Contains(other.DevcontainerIDs, id) {
				return refuse(schema.CodeProjectExists, "the dev container ID %s belongs to project %s, and an ID cannot belong to two projects", id, other.Name)
			}
		}
	}
	return nil
}

// linkProjectUnlocked creates the links to a project's directory in the runtime directory.
// It unlocks mu while it creates the link with the name, for the same reason as bindUnlocked.
// mu stays locked for the links of dev containers, because two projects can have the same ID.
func (r *registry) linkProjectUnlocked(registration schema.RegisterRequest) error {
	if err := r.checkDevcontainersLocked(registration); err != nil {
		return err
	}
	r.mu.Unlock()
	err := r.describeNameError(registration.Name, r.dir.LinkName(registration.Name, registration.ProjectPath))
	r.mu.Lock()
	if err == nil {
		err = r.dir.LinkDevcontainers(registration.ProjectPath, registration.DevcontainerIDs)
	}
	if err == nil && r.stopping {
		err = errStopping()
	}
	return err
}
