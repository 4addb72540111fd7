package broker

import (
	"errors"
	"fmt"

	"github.com/keyhatch/keyhatch/broker/endpoint"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// applyDeclarations makes the registry match the declared projects in a directory:
// it adds new ones, replaces changed manifests, and removes projects that are no
// longer declared. If a file has an error, its project stays as it is. Such errors are
// logged and returned.
func applyDeclarations(r *registry, projectsDir string) error {
	if projectsDir == "" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return nil
	}
	declared, invalid, err := manifest.ReadDeclarations(projectsDir)
	if err != nil {
		r.log.Error("cannot read the declared projects; the served projects stay as they are", "error", err)
		return err
	}
	var problems []error
	for name, declaration := range declared {
		if err := applyDeclarationLocked(r, declaration); err != nil {
			invalid[name] = err
		}
	}
	for name, err := range invalid {
		r.log.Error("cannot serve a declared project", "file", name+".yaml", "error", err)
		problems = append(problems, fmt.Errorf("%s.yaml: %w", name, err))
	}
	for name, e := range r.entries {
		if _, ok := declared[string(name)]; e.registration.Declared && !ok && invalid[string(name)] == nil {
			r.log.Info("a project is no longer declared", "project", name)
			r.removeProjectLocked(e, endpoint.Self())
		}
	}
	return errors.Join(problems...)
}

// applyDeclarationLocked serves one project as it is declared.
func applyDeclarationLocked(r *registry, d manifest.Declaration) error {
	registration := schema.RegisterRequest{
		Op: schema.OpRegister, Name: d.Name, ProjectPath: d.Path, Manifest: &d.Manifest,
		AllowUIDs: d.AllowUIDs, DevcontainerIDs: d.DevcontainerIDs, Declared: true,
	}
	if err := checkRegistration(registration); err != nil {
		return err
	}
	parsed, err := manifest.Parse([]byte(d.Manifest), d.Name)
	if err != nil {
		return err
	}
	e := r.entries[d.Name]
	if e != nil && !differsOnlyInManifest(e.registration, registration) {
		r.removeProjectLocked(e, endpoint.Self())
		e = nil
	}
	if e == nil {
		_, err := r.addProjectLocked(registration, parsed, endpoint.Self())
		return err
	}
	previous := e.registration
	e.registration.Declared = true
	switch {
	case *previous.Manifest != d.Manifest:
		r.replaceManifestLocked(e, parsed, d.Manifest, endpoint.Self())
	case !previous.Declared:
		r.storeForRestartLocked(e)
	}
	return nil
}
