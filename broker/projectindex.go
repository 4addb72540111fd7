package broker

import "github.com/keyhatch/keyhatch/schema"

// A projectIndex finds the names of the served and unserved projects by path and by dev
// container ID. Without the index, a broker that starts with many projects would compare each
// project with all other projects.
type projectIndex struct {
	byPath         map[string]schema.ProjectName
	byDevcontainer map[schema.DevcontainerID]schema.ProjectName
}

func newProjectIndex() projectIndex {
	return projectIndex{map[string]schema.ProjectName{}, map[schema.DevcontainerID]schema.ProjectName{}}
}

func (x projectIndex) add(registration schema.RegisterRequest) {
	x.byPath[registration.ProjectPath] = registration.Name
	for _, id := range registration.DevcontainerIDs {
		x.byDevcontainer[id] = registration.Name
	}
}

// remove removes a registration. It does not remove a path or an ID that add has assigned to
// another name in the meantime, because a project that is renamed is added before its old
// name is removed.
func (x projectIndex) remove(registration schema.RegisterRequest) {
	if x.byPath[registration.ProjectPath] == registration.Name {
		delete(x.byPath, registration.ProjectPath)
	}
	for _, id := range registration.DevcontainerIDs {
		if x.byDevcontainer[id] == registration.Name {
			delete(x.byDevcontainer, id)
		}
	}
}
