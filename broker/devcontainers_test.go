package broker_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// TestDevcontainerLinkOfOtherProjectIsKept registers a project with a dev container ID that
// belongs to another registered project. The broker must refuse the ID and must not change
// the link. Otherwise, a container of one project would get the secrets of the other project.
func TestDevcontainerLinkOfOtherProjectIsKept(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	shared, own := schema.DevcontainerID(strings.Repeat("a", 52)), schema.DevcontainerID(strings.Repeat("b", 52))
	withIDs := func(ids ...schema.DevcontainerID) func(*schema.RegisterRequest) {
		return func(r *schema.RegisterRequest) { r.DevcontainerIDs, r.Replace = ids, true }
	}
	if _, err := m.registerAt("good", "/nowhere/good", withIDs(shared)); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(m.dir, "run/devcontainers", string(shared))
	target, err := os.Readlink(link)
	if err != nil {
		t.Fatal(err)
	}
	checkRefused := func(err error) {
		t.Helper()
		if client.CodeOf(err) != schema.CodeProjectExists || !strings.Contains(err.Error(), "project good") {
			t.Errorf("the error for the ID of another project is %v", err)
		}
		if now, err := os.Readlink(link); err != nil || now != target {
			t.Errorf("the link leads to %s, error %v, want %s", now, err, target)
		}
	}
	_, err = m.registerAt("evil", "/nowhere/evil", func(r *schema.RegisterRequest) {
		r.DevcontainerIDs, r.DryRun = []schema.DevcontainerID{shared}, true
	})
	checkRefused(err)
	_, err = m.registerAt("evil", "/nowhere/evil", withIDs(own, shared))
	checkRefused(err)
	for _, path := range []string{"projects/evil", "devcontainers/" + string(own)} {
		if _, err := os.Lstat(filepath.Join(m.dir, "run", path)); !os.IsNotExist(err) {
			t.Errorf("the refused registration created %s: %v", path, err)
		}
	}
	if _, err := m.registerAt("evil", "/nowhere/evil", withIDs(own)); err != nil {
		t.Fatal(err)
	}
	_, err = m.registerAt("evil", "/nowhere/evil", withIDs(own, shared))
	checkRefused(err)
	_, err = m.registerAt("renamed", "/nowhere/evil", withIDs(own, shared))
	checkRefused(err)

	// A declaration with the ID of another project must fail, too.
	m.declare(manifest.Declaration{Name: "declared", Path: "/nowhere/declared", Manifest: manifestText("declared"), DevcontainerIDs: []schema.DevcontainerID{shared}})
	if err := s.ApplyDeclarations(); err == nil || !strings.Contains(err.Error(), "project good") {
		t.Errorf("the error for a declaration with the ID of another project is %v", err)
	}

	// After a project is unregistered, its container can still mount the link of the ID. So the
	// broker must refuse the ID for another path until the operator removes the link.
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "good") })
	for _, dryRun := range []bool{true, false} {
		_, err := m.registerAt("evil", "/nowhere/evil", func(r *schema.RegisterRequest) {
			r.DevcontainerIDs, r.DryRun, r.Replace = []schema.DevcontainerID{own, shared}, dryRun, true
		})
		if client.CodeOf(err) != schema.CodeProjectExists || !strings.Contains(err.Error(), "remove the link "+link+" if") {
			t.Errorf("the error for the ID of an unregistered project is %v", err)
		}
	}
	if _, err := m.registerAt("good", "/nowhere/good", withIDs(shared)); err != nil {
		t.Errorf("registering the project of the ID again: %v", err)
	}
	if now, err := os.Readlink(link); err != nil || now != target {
		t.Errorf("the link leads to %s, error %v, want %s", now, err, target)
	}
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "good") })
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if _, err := m.registerAt("evil", "/nowhere/evil", withIDs(own, shared)); err != nil {
		t.Errorf("after the link was removed, the error is %v", err)
	}
}

// TestFailedRegistrationLeavesNoLink registers a project whose socket or last link cannot be
// created. The broker must remove the links and the directory that it created before.
func TestFailedRegistrationLeavesNoLink(t *testing.T) {
	m := newServiceManager(t, 100)
	m.start()
	run := filepath.Join(m.dir, "run")
	files := func() (paths []string) {
		for _, dir := range []string{"projects", "devcontainers"} {
			entries, err := os.ReadDir(filepath.Join(run, dir))
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range entries {
				paths = append(paths, filepath.Join(dir, entry.Name()))
			}
		}
		return paths
	}
	ids := []schema.DevcontainerID{schema.DevcontainerID(strings.Repeat("a", 52)), schema.DevcontainerID(strings.Repeat("b", 52))}
	register := func() error {
		_, err := m.registerAt("api", "/nowhere/api", func(r *schema.RegisterRequest) { r.DevcontainerIDs = ids })
		return err
	}

	// A file at the path of the last link makes the registration fail.
	blocking := filepath.Join(run, "devcontainers", string(ids[1]))
	if err := os.WriteFile(blocking, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := files()
	if err := register(); err == nil || !slices.Equal(files(), before) {
		t.Errorf("with a file at the path of a link, the error is %v, and the runtime directory contains %v, want %v", err, files(), before)
	}
	if err := os.Remove(blocking); err != nil {
		t.Fatal(err)
	}

	// A directory with content at the path of the socket makes the registration fail.
	if err := register(); err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(run, "projects/api"))
	if err != nil {
		t.Fatal(err)
	}
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "api") })
	for _, path := range files() {
		if path != filepath.Join("projects", filepath.Base(dir)) {
			if err := os.Remove(filepath.Join(run, path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "broker.sock/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	before = files()
	if err := register(); err == nil || !slices.Equal(files(), before) {
		t.Errorf("with a directory at the path of the socket, the error is %v, and the runtime directory contains %v, want %v", err, files(), before)
	}
	if err := os.RemoveAll(filepath.Join(dir, "broker.sock")); err != nil {
		t.Fatal(err)
	}
	if err := register(); err != nil {
		t.Error(err)
	}
}

// TestTwoDeclarationsWithOneDevcontainerID declares two projects with the same dev container
// ID. The broker must serve only the first project, and report a problem of the second project.
// The link of the ID must lead to the first project.
func TestTwoDeclarationsWithOneDevcontainerID(t *testing.T) {
	m := newServiceManager(t, 100)
	id := schema.DevcontainerID(strings.Repeat("a", 52))
	for _, name := range []schema.ProjectName{"one", "two"} {
		m.declare(manifest.Declaration{Name: name, Path: "/nowhere/" + string(name), Manifest: manifestText(string(name)), DevcontainerIDs: []schema.DevcontainerID{id}})
	}
	m.start()
	var status schema.StatusResponse
	m.withAdmin(func(admin *client.Admin) (err error) { status, err = admin.Status(context.Background()); return err })
	if len(status.Projects) != 1 || status.Projects[0].Name != "one" || len(status.Problems) != 1 || status.Problems[0].Project != "two" {
		t.Errorf("the status contains the projects %v and the problems %v", status.Projects, status.Problems)
	}
	ofID, err := os.Readlink(filepath.Join(m.dir, "run/devcontainers", string(id)))
	if err != nil {
		t.Fatal(err)
	}
	ofName, err := os.Readlink(filepath.Join(m.dir, "run/projects/one"))
	if err != nil || filepath.Base(ofID) != filepath.Base(ofName) {
		t.Errorf("the link of the ID leads to %s, and the link of the name to %s, error %v", ofID, ofName, err)
	}
}

// TestOnlyCurrentDevcontainerIDsLeadToProject changes the dev container IDs of a project by
// registrations, declarations, and a restart. Only the links of the current IDs may lead to the
// directory of the project's socket. Earlier IDs must stay reserved for the path of the project,
// because a container can still mount their links.
func TestOnlyCurrentDevcontainerIDsLeadToProject(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	ids := func(letters string) (ids []schema.DevcontainerID) {
		for _, letter := range letters {
			ids = append(ids, schema.DevcontainerID(strings.Repeat(string(letter), 52)))
		}
		return ids
	}
	register := func(name, path, letters string) error {
		_, err := m.registerAt(name, path, func(r *schema.RegisterRequest) { r.DevcontainerIDs, r.Replace = ids(letters), true })
		return err
	}
	check := func(step, want string) {
		t.Helper()
		reached := ""
		for _, id := range ids("abcd") {
			if _, err := os.Stat(filepath.Join(m.dir, "run/devcontainers", string(id), "broker.sock")); err == nil {
				reached += string(id[:1])
			}
		}
		if reached != want {
			t.Errorf("%s: the links %q lead to the socket, want %q", step, reached, want)
		}
	}
	mustRegister := func(step, name, letters string) {
		t.Helper()
		if err := register(name, "/nowhere/api", letters); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		check(step, letters)
	}
	mustRegister("a new project", "api", "abc")
	mustRegister("a changed project", "api", "bc")
	mustRegister("an ID again", "api", "abc")
	mustRegister("another name", "api2", "ab")
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "api2") })
	mustRegister("a project that was unregistered", "api2", "d")
	for _, letter := range []string{"a", "b", "c"} {
		if err := register("evil", "/nowhere/evil", letter); client.CodeOf(err) != schema.CodeProjectExists {
			t.Errorf("the error for the earlier ID %s of another project is %v", letter, err)
		}
	}
	if err := register("evil", "/nowhere/evil", ""); err != nil {
		t.Fatal(err)
	}
	check("another project", "d")

	// A directory with content at the path of the socket makes the registration fail. A failed
	// registration must not change the links.
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "api2") })
	blocking := m.projectSocket("api2")
	if err := os.MkdirAll(blocking+"/x", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := register("api2", "/nowhere/api", "a"); err == nil {
		t.Error("a registration with a directory at the path of its socket succeeded")
	}
	check("a failed registration", "d")
	if err := os.RemoveAll(blocking); err != nil {
		t.Fatal(err)
	}
	mustRegister("after a failed registration", "api2", "d")

	// Change the IDs with a declaration, and with a changed declaration and a restart.
	declare := func(letters string) {
		m.declare(manifest.Declaration{Name: "api2", Path: "/nowhere/api", Manifest: manifestText("api2"), DevcontainerIDs: ids(letters)})
	}
	declare("bc")
	if err := s.ApplyDeclarations(); err != nil {
		t.Fatal(err)
	}
	check("a declaration", "bc")
	s.Close()
	declare("c")
	s = m.start()
	check("a start", "c")
	declare("")
	if err := s.ApplyDeclarations(); err != nil {
		t.Fatal(err)
	}
	check("a declaration without IDs", "")
}
