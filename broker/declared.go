package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// applyDeclarations makes the registry match the declared projects in a directory. It changes
// projects whose declarations have changed, and removes projects that are no longer declared.
// It adds new projects to the unserved projects, which serveProjects must serve afterwards.
// If a declaration is not valid, its project does not change, and applyDeclarations logs the
// error. If the broker cannot serve a valid declaration, it still revokes the access that the
// declaration does not contain (see revokeLocked). If the directory cannot be read, or is
// missing although the broker knows a declared project, applyDeclarations returns an error, and
// no project changes. r.changing must be locked.
func applyDeclarations(r *registry, projectsDir string) error {
	if projectsDir == "" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return nil
	}
	declared, invalid, err := r.declarations.Read(projectsDir)
	if err == nil {
		err = checkNotMissingLocked(r, projectsDir)
	}
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
	for name, err := range r.notApplied {
		r.log.Error("cannot apply the declaration of a project", "file", name+".yaml", "error", describeWithoutSecrets(err))
	}
	isRemoved := func(registration schema.RegisterRequest) bool {
		_, ok := declared[string(registration.Name)]
		return registration.Declared && !ok && r.notApplied[string(registration.Name)] == nil
	}
	for name, e := range maps.Clone(r.entries) { // a copy, because removeProjectLocked unlocks mu for a moment
		if isRemoved(e.registration) {
			r.log.Info("a project is no longer declared", "project", name)
			r.removeProjectLocked(e, endpoint.Self())
		}
	}
	for name, u := range r.unserved {
		if isRemoved(u.registration) {
			r.log.Info("a project is no longer declared", "project", name)
			r.forgetUnservedLocked(name, u.registration.ProjectPath)
		}
	}
	return nil
}

// checkNotMissingLocked returns an error if the directory of declared projects is missing,
// although the broker knows a declared project. The directory can be on a file system that
// is not mounted, so a missing directory does not revoke the declared projects. To revoke them,
// the operator must remove their files, but not the directory.
func checkNotMissingLocked(r *registry, projectsDir string) error {
	if _, err := os.Stat(projectsDir); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	isDeclared := false
	for _, e := range r.entries {
		isDeclared = isDeclared || e.registration.Declared
	}
	for _, u := range r.unserved {
		isDeclared = isDeclared || u.registration.Declared
	}
	if !isDeclared {
		return nil
	}
	return fmt.Errorf("%s is missing: restore the directory, or create an empty directory to unregister all declared projects", projectsDir)
}

// declarationErrors returns the errors of the declarations that are not applied, and of the
// declared projects that are not served.
func declarationErrors(r *registry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var problems []error
	for name, err := range r.notApplied {
		problems = append(problems, fmt.Errorf("%s.yaml: %w", name, err))
	}
	for name, u := range r.unserved {
		if u.registration.Declared {
			problems = append(problems, fmt.Errorf("%s.yaml: %w", name, u.err))
		}
	}
	return errors.Join(problems...)
}

// applyDeclarationLocked changes one declared project, so that the project matches its
// declaration. If the project is not served, applyDeclarationLocked adds it to the unserved
// projects.
//
// Two files can declare the same path. If the broker already serves a project at this path, the
// file with the name of this project is in effect. Otherwise, the first of the two files in
// alphabetical order is in effect. For the other file, applyDeclarationLocked returns an error.
func applyDeclarationLocked(r *registry, d manifest.Declaration, declared map[string]manifest.Declaration) error {
	registration := registrationOf(d)
	if err := checkRegistration(registration); err != nil {
		return err
	}
	parsed, err := manifest.Parse([]byte(d.Manifest))
	if err != nil {
		return err
	}
	current := r.findRegistrationLocked(d.Path)
	if current != nil {
		if other, ok := declared[string(current.Name)]; ok && other.Name != d.Name && other.Path == d.Path {
			return fmt.Errorf("%s.yaml declares the same path and is in effect: remove one of the two files", other.Name)
		}
		if current.Declared && current.Name == d.Name && compareRegistrations(*current, registration) == nil {
			return nil
		}
	}
	if err := revokeLocked(r, registration, parsed, declared); err != nil {
		return err
	}
	if r.findPathLocked(d.Path) != nil {
		if err := r.checkNamesLocked(registration); err != nil {
			return err
		}
		return r.addOrChangeLocked(registration, parsed, endpoint.Self())
	}
	if err := r.checkOtherProjectsLocked(registration); err != nil {
		return err
	}
	r.forgetUnservedLocked(d.Name, d.Path)
	r.addUnservedLocked(&unservedProject{registration: registration, parsed: parsed, err: errStarting})
	return nil
}
