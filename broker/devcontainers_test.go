package broker_test

import (
	"context"
	"os"
	"path/filepath"
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

	// A declaration cannot take the ID either.
	m.declare(manifest.Declaration{Name: "declared", Path: "/nowhere/declared", Manifest: manifestText("declared"), DevcontainerIDs: []schema.DevcontainerID{shared}})
	if err := s.ApplyDeclarations(); err == nil || !strings.Contains(err.Error(), "project good") {
		t.Errorf("the error for a declaration with the ID of another project is %v", err)
	}

	// After the other project is unregistered, the ID is free.
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "good") })
	if _, err := m.registerAt("evil", "/nowhere/evil", withIDs(own, shared)); err != nil {
		t.Error(err)
	}
}

// TestTwoDeclarationsWithOneDevcontainerID declares two projects with the same dev container
// ID. The broker serves both at the same time, but the link must lead to the first project.
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
