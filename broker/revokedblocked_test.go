package broker_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// revocations contains changes of the declaration of project api, which was declared with the
// secrets A and B, the uid 1000, and the path /nowhere/api. Each change revokes something.
var revocations = map[string]func(m *serviceManager){
	"a secret": func(m *serviceManager) {
		m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", AllowUIDs: []uint32{1000}, Manifest: manifestText("api", "A")})
	},
	"a uid": func(m *serviceManager) {
		m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", Manifest: manifestText("api", "A", "B")})
	},
	"a secret and the name": func(m *serviceManager) {
		m.removeDeclaration("api")
		m.declare(manifest.Declaration{Name: "other", Path: "/nowhere/api", Manifest: manifestText("other", "A")})
	},
	"the path": func(m *serviceManager) {
		m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/moved", AllowUIDs: []uint32{1000}, Manifest: manifestText("api", "A", "B")})
	},
	"the project": func(m *serviceManager) { m.removeDeclaration("api") },
	"a secret, with an ID that belongs to another project": func(m *serviceManager) {
		m.declare(manifest.Declaration{
			Name: "api", Path: "/nowhere/api", AllowUIDs: []uint32{1000}, Manifest: manifestText("api", "A"),
			DevcontainerIDs: []schema.DevcontainerID{devcontainerIDOf("web")},
		})
	},
}

func (m *serviceManager) removeDeclaration(name string) {
	m.t.Helper()
	if err := os.Remove(m.dir + "/projects.d/" + name + ".yaml"); err != nil {
		m.t.Fatal(err)
	}
}

// expectRevoked checks that no project gives the uid 1000 access to the secret B.
func (m *serviceManager) expectRevoked(when string) {
	m.t.Helper()
	m.withAdmin(func(admin *client.Admin) error {
		status, err := admin.Status(m.t.Context())
		for _, p := range status.Projects {
			if p.Name == "web" {
				continue
			}
			project, err := admin.Inspect(m.t.Context(), p.Name)
			if err != nil {
				return err
			}
			if len(project.AllowUIDs) > 0 && strings.Contains(project.Manifest, "B:") {
				m.t.Errorf("%s, the broker serves %+v", when, project)
			}
		}
		return err
	})
}

// TestRevocationOfUnservedProject revokes a part of a declaration while the broker cannot serve
// the project. The broker is then killed, and the next broker cannot read the declarations. It
// must not serve the registration that an earlier broker stored before the revocation.
func TestRevocationOfUnservedProject(t *testing.T) {
	unreadable := map[string]func(dir string) error{
		"the directory is missing":                     func(dir string) error { return os.Rename(dir, dir+".unmounted") },
		"other users can write to the directory":       func(dir string) error { return os.Chmod(dir, 0o777) },
		"the declarations of the project are not YAML": breakDeclarations,
	}
	for revoked, revoke := range revocations {
		for problem, breakDir := range unreadable {
			t.Run(revoked+"/"+problem, func(t *testing.T) {
				m := newServiceManager(t, 100)
				m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", AllowUIDs: []uint32{1000}, Manifest: manifestText("api", "A", "B")})
				p := m.startProcess()
				m.register("web", "A")
				p.kill()
				unblock := m.blockProject("api")
				p = p.restart()
				revoke(m)
				p.applyDeclarations()
				p.kill()
				m.sync()
				unblock()
				if err := breakDir(m.dir + "/projects.d"); err != nil {
					t.Fatal(err)
				}
				m.startProcess()
				m.expectRevoked("after the restart")
			})
		}
	}
}

func breakDeclarations(dir string) error {
	files, err := filepath.Glob(dir + "/*.yaml")
	for _, file := range append(files, dir+"/api.yaml") {
		if err == nil {
			err = os.WriteFile(file, []byte("path: ["), 0o644)
		}
	}
	return err
}

// TestRevocationAtStart revokes a part of a declaration while no broker runs and the project is
// blocked. The next broker reads the declaration and is killed. The broker after that cannot read
// the declarations, and must not serve the old registration.
func TestRevocationAtStart(t *testing.T) {
	for revoked, revoke := range revocations {
		t.Run(revoked, func(t *testing.T) {
			m := newServiceManager(t, 100)
			m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", AllowUIDs: []uint32{1000}, Manifest: manifestText("api", "A", "B")})
			p := m.startProcess()
			m.register("web", "A")
			p.kill()
			revoke(m)
			unblock := m.blockProject("api")
			p = p.restart()
			m.expectRevoked("while the project is blocked")
			p.kill()
			m.sync()
			unblock()
			m.unmountDeclarations()
			m.startProcess()
			m.expectRevoked("after the second restart")
		})
	}
}

// blockProject replaces the link of a project by a directory with content. This has the same effect as
// a container that blocks the directory of the project. unblock creates the link again.
func (m *serviceManager) blockProject(name string) (unblock func()) {
	m.t.Helper()
	link := filepath.Dir(m.projectSocket(name))
	target, err := os.Readlink(link)
	if err := errors.Join(err, os.Remove(link), os.MkdirAll(link+"/x", 0o700)); err != nil {
		m.t.Fatal(err)
	}
	return func() {
		m.t.Helper()
		if err := errors.Join(os.RemoveAll(link), os.Symlink(target, link)); err != nil {
			m.t.Fatal(err)
		}
	}
}

// unmountDeclarations moves the directory of declared projects away, as if it was unmounted.
func (m *serviceManager) unmountDeclarations() {
	m.t.Helper()
	if err := os.Rename(m.dir+"/projects.d", m.dir+"/unmounted"); err != nil {
		m.t.Fatal(err)
	}
}

// TestRevocationOfServedProjectWithBlockedLink revokes a part of the declaration of a project
// that the broker serves. The new declaration also contains a dev container ID that the broker
// cannot use, because a container engine has created a directory at the path of the link. The
// broker must nevertheless apply the revocation immediately.
func TestRevocationOfServedProjectWithBlockedLink(t *testing.T) {
	m := newServiceManager(t, 100)
	oldID, newID := devcontainerIDOf("old"), devcontainerIDOf("new")
	m.declare(manifest.Declaration{
		Name: "api", Path: "/nowhere/api", AllowUIDs: []uint32{1000}, Manifest: manifestText("api", "A", "B"), DevcontainerIDs: []schema.DevcontainerID{oldID},
	})
	p := m.startProcess()
	m.push(tripwire)
	m.expect("api", "B", tripwire)
	if err := os.MkdirAll(m.dir+"/run/devcontainers/"+string(newID)+"/x", 0o700); err != nil {
		t.Fatal(err)
	}
	m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", Manifest: manifestText("api", "A"), DevcontainerIDs: []schema.DevcontainerID{newID}})
	check := func(when string) {
		t.Helper()
		m.push(tripwire)
		m.expect("api", "A", tripwire)
		m.expect("api", "B", `"denied"`)
		m.withAdmin(func(admin *client.Admin) error {
			project, err := admin.Inspect(t.Context(), "api")
			if len(project.AllowUIDs)+len(project.DevcontainerIDs) > 0 {
				t.Errorf("%s, the uids are %v, and the IDs are %v", when, project.AllowUIDs, project.DevcontainerIDs)
			}
			return err
		})
		if _, err := os.Stat(m.dir + "/run/devcontainers/" + string(oldID)); err == nil {
			t.Errorf("%s, the removed dev container ID leads to the project", when)
		}
	}
	p.applyDeclarations()
	check("after SIGHUP")
	p.applyDeclarations()
	check("after the second SIGHUP")
	m.unmountDeclarations()
	p.restart()
	check("after a restart")
}

// TestRevocationOfServedProject revokes a part of a declaration while the broker serves the
// project. The broker must apply the revocation, also if it refuses the rest of the declaration.
func TestRevocationOfServedProject(t *testing.T) {
	for revoked, revoke := range revocations {
		t.Run(revoked, func(t *testing.T) {
			m := newServiceManager(t, 100)
			m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", AllowUIDs: []uint32{1000}, Manifest: manifestText("api", "A", "B")})
			p := m.startProcess()
			m.register("web", "A")
			m.push(tripwire)
			revoke(m)
			p.applyDeclarations()
			m.expectRevoked("after SIGHUP")
			m.unmountDeclarations()
			p.restart()
			m.expectRevoked("after a restart")
		})
	}
}

// TestDeclarationOfServedPathUnderRefusedName declares the path of a project under a name that
// belongs to another project. The broker refuses the name, but must apply the declared manifest:
// it is the last one that the operator has approved for this path.
func TestDeclarationOfServedPathUnderRefusedName(t *testing.T) {
	m := newServiceManager(t, 100)
	p := m.startProcess()
	m.register("api", "A", "B")
	m.register("web", "A")
	m.push(tripwire)
	m.declare(manifest.Declaration{Name: "web", Path: "/nowhere/api", Manifest: manifestText("web", "A")})
	p.applyDeclarations()
	m.expect("api", "A", tripwire)
	m.expect("api", "B", `"denied"`)
	m.expect("web", "A", tripwire)
	p.restart()
	m.push(tripwire)
	m.expect("api", "A", tripwire)
	m.expect("api", "B", `"denied"`)
}

// TestChangedDeclarationKeepsListener changes a declaration while no broker runs. The next broker
// removes the old registration from the descriptor store, but must keep the listener there:
// clients can wait in its backlog.
func TestChangedDeclarationKeepsListener(t *testing.T) {
	m := newServiceManager(t, 100)
	m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", Manifest: manifestText("api", "A", "B")})
	p := m.startProcess()
	m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", Manifest: manifestText("api", "A")})
	p.restart()
	m.sync()
	if names := m.storedNames(); len(names) != 2 || names[0] != "project-api" {
		t.Errorf("the descriptor store contains %v, want a listener and a registration", names)
	}
}
