package broker

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/manifest"
)

// applyDeclarations makes the registry match the declared projects in a directory. It
// adds new projects, changes projects whose declarations have changed, and removes
// projects that are no longer declared. If a declaration has an error, its project does
// not change. applyDeclarations logs and returns such errors.
func applyDeclarations(r *registry, projectsDir string) error {
	if projectsDir == "" {
		return nil
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return nil
	}
	declared, invalid, err := manifest.ReadDeclarations(projectsDir)
	if err != nil {
		r.log.Error("cannot read the declared projects; the broker does not change the served projects", "error", err)
		return err
	}
	r.notApplied = invalid
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		if err := applyDeclarationLocked(r, declared[name], declared); err != nil {
			r.notApplied[name] = err
		}
	}
	var problems []error
	for name, err := range r.notApplied {
		r.log.Error("cannot apply the declaration of a project", "file", name+".yaml", "error", err)
		problems = append(problems, fmt.Errorf("%s.yaml: %w", name, err))
	}
	for name, e := range maps.Clone(r.entries) { // a copy, because removeProjectLocked releases mu
		if _, ok := declared[string(name)]; e.registration.Declared && !ok && r.notApplied[string(name)] == nil {
			r.log.Info("a project is no longer declared", "project", name)
			r.removeProjectLocked(e, endpoint.Self())
		}
	}
	return errors.Join(problems...)
}

// applyDeclarationLocked adds or changes one declared project, so that the project matches
// its declaration. If two files declare the same path, the file of the served project is in
// effect. If the project is not served yet, the first file in alphabetical order is in
// effect.
func applyDeclarationLocked(r *registry, d manifest.Declaration, declared map[string]manifest.Declaration) error {
	registration := registrationOf(d)
	if err := checkRegistration(registration); err != nil {
		return err
	}
	if err := r.checkNameLocked(d.Name, d.Path); err != nil {
		return err
	}
	parsed, err := manifest.Parse([]byte(d.Manifest))
	if err != nil {
		return err
	}
	if e := r.findPathLocked(d.Path); e != nil {
		if other, ok := declared[string(e.registration.Name)]; ok && other.Name != d.Name && other.Path == d.Path {
			return fmt.Errorf("%s.yaml declares the same path and is in effect: remove one of the two files", other.Name)
		}
		if e.registration.Declared && e.registration.Name == d.Name && compareRegistrations(e.registration, registration) == nil {
			return nil
		}
	}
	_, err = r.addOrChangeLocked(registration, parsed, endpoint.Self())
	return err
}
