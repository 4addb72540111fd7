package broker_test

import (
	"context"
	"os"
	"slices"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
)

// TestOwnerOfRegisteredProjectIsNotAllowed changes the owner of the directory of a registered
// project, as a container can do. A request without allow_uids must not allow the new owner,
// because the operator has not approved that uid.
func TestOwnerOfRegisteredProjectIsNotAllowed(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "only root can change the owner of a directory")
	m := newServiceManager(t, 100)
	s := m.start()
	dir := t.TempDir()
	register := func(name string, change func(*schema.RegisterRequest)) {
		t.Helper()
		if _, err := m.registerAt(name, dir+"/"+name, change); err != nil {
			t.Fatal(err)
		}
	}
	checkUIDs := func(name string, want ...uint32) {
		t.Helper()
		m.withAdmin(func(admin *client.Admin) error {
			p, err := admin.Inspect(context.Background(), schema.ProjectName(name))
			if err == nil && !slices.Equal(p.AllowUIDs, want) {
				t.Errorf("the uids of %s are %v, want %v", name, p.AllowUIDs, want)
			}
			return err
		})
	}
	for _, name := range []string{"api", "team"} {
		if err := os.Mkdir(dir+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir+"/"+name, 1111, -1); err != nil {
			t.Fatal(err)
		}
	}
	register("api", func(*schema.RegisterRequest) {})
	checkUIDs("api", 1111)
	text := manifestText("team", "A")
	m.declare(manifest.Declaration{Name: "team", Path: dir + "/team", Manifest: text})
	if err := s.ApplyDeclarations(); err != nil {
		t.Fatal(err)
	}
	checkUIDs("team")

	for _, name := range []string{"api", "team"} {
		if err := os.Chown(dir+"/"+name, 4242, -1); err != nil {
			t.Fatal(err)
		}
	}
	for _, declared := range []bool{false, true} {
		register("api", func(r *schema.RegisterRequest) { r.Replace, r.Declared = true, declared })
		checkUIDs("api", 1111)
		register("team", func(r *schema.RegisterRequest) { r.Replace, r.Declared = true, declared })
		checkUIDs("team")
	}
	// This is the request of `keyhatchctl declare`, which changes nothing.
	register("team", func(r *schema.RegisterRequest) { r.Declared = true })
	checkUIDs("team")

	// A new declared project has exactly the uids in its declaration.
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "team") })
	register("team", func(r *schema.RegisterRequest) { r.Declared = true })
	checkUIDs("team")
}
