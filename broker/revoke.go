package broker

import (
	"cmp"
	"slices"

	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// revokeLocked ends the access that a declaration has revoked, for the served and unserved projects
// and for their stored registrations. A container can prevent that the broker serves a
// declaration, for example if the container blocks its directory, or the broker can refuse the
// name in the declaration. So applyDeclarationLocked calls revokeLocked before everything that can
// fail because of a container or because of another project. Otherwise, the old registration would
// stay in effect, and the next broker would serve the old registration if it cannot read the
// declarations.
func revokeLocked(r *registry, declaration schema.RegisterRequest, parsed *manifest.Manifest, declared map[string]manifest.Declaration) error {
	if old := r.findNameLocked(declaration.Name); old != nil && old.Declared && old.ProjectPath != declaration.ProjectPath && !declaresPath(declared, old.ProjectPath) {
		r.log.Info("the declaration of a project has another path now", "project", old.Name)
		if e := r.entries[old.Name]; e != nil {
			r.removeProjectLocked(e, endpoint.Self())
		} else {
			r.forgetUnservedLocked(old.Name, old.ProjectPath)
		}
	}
	if e := r.findPathLocked(declaration.ProjectPath); e != nil {
		restricted := restrict(e.registration, declaration)
		if compareRegistrations(e.registration, restricted) == nil {
			return nil
		}
		err := r.dir.ReserveOthers(restricted.DevcontainerIDs, restricted.ProjectPath)
		return cmp.Or(r.changeProjectLocked(e, restricted, parsed, endpoint.Self()), err) // change the project also if there is an error
	}
	u := r.unserved[r.index.byPath[declaration.ProjectPath]]
	if u == nil {
		return nil
	}
	isInvalid := u.parsed == nil
	restricted := restrict(u.registration, declaration)
	if !isInvalid && compareRegistrations(u.registration, restricted) == nil {
		return nil
	}
	r.forgetUnservedLocked(u.registration.Name, u.registration.ProjectPath)
	if !isInvalid {
		r.addUnservedLocked(&unservedProject{registration: restricted, parsed: parsed, err: u.err})
	}
	return nil
}

// restrict returns the registration of a project with the manifest and the uids of its declaration,
// and without the dev container IDs that the declaration does not contain. The broker can apply
// this registration without new links, so nothing can prevent the change.
func restrict(registration, declaration schema.RegisterRequest) schema.RegisterRequest {
	registration.Manifest, registration.AllowUIDs = declaration.Manifest, declaration.AllowUIDs
	registration.DevcontainerIDs = slices.DeleteFunc(slices.Clone(registration.DevcontainerIDs), func(id schema.DevcontainerID) bool {
		return !slices.Contains(declaration.DevcontainerIDs, id)
	})
	return registration
}

func declaresPath(declared map[string]manifest.Declaration, path string) bool {
	for _, d := range declared {
		if d.Path == path {
			return true
		}
	}
	return false
}
