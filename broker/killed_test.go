package broker_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// TestStoreIsConsistentAtEveryMoment changes a project, and records the content of the
// descriptor store after each message of the broker. If the broker is killed at this moment,
// the next broker gets this content. The next broker must serve the project either as before
// the change or as after the change.
func TestStoreIsConsistentAtEveryMoment(t *testing.T) {
	text := manifestText("api", "B")
	for name, c := range map[string]struct {
		change func(context.Context, *client.Admin) error
		after  string // what the next broker serves after the whole change
	}{
		"reload": {func(ctx context.Context, admin *client.Admin) error {
			_, err := admin.Reload(ctx, schema.ReloadRequest{Name: "api", Manifest: &text})
			return err
		}, "api uids [] allows B"},
		"uids": {func(ctx context.Context, admin *client.Admin) error {
			_, err := admin.Register(ctx, schema.RegisterRequest{Name: "api", ProjectPath: "/nowhere/api", Manifest: &text, AllowUIDs: []uint32{1}, Replace: true})
			return err
		}, "api uids [1] allows B"},
		"rename": {func(ctx context.Context, admin *client.Admin) error {
			_, err := admin.Register(ctx, schema.RegisterRequest{Name: "renamed", ProjectPath: "/nowhere/api", Manifest: &text, Replace: true})
			return err
		}, "renamed uids [] allows B"},
		"unregister": {func(ctx context.Context, admin *client.Admin) error { return admin.Unregister(ctx, "api") }, "nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newServiceManager(t, 100)
			s := m.start()
			m.register("api", "A")
			m.sync()
			m.mu.Lock()
			m.record = true
			m.mu.Unlock()
			m.withAdmin(func(admin *client.Admin) error { return c.change(t.Context(), admin) })
			m.sync()
			s.Close()
			m.mu.Lock()
			m.record = false
			states := m.states
			m.mu.Unlock()
			for i, state := range states {
				m.dropStore()
				m.mu.Lock()
				m.store = state
				names := m.copyNames()
				m.mu.Unlock()
				s := m.start()
				got := describeServed(t, m, s.Status())
				want := []string{"api uids [] allows A", c.after}
				if i == len(states)-1 {
					want = want[1:]
				}
				if !slices.Contains(want, got) {
					t.Errorf("if the store contains %v, the next broker serves %s, want one of %q", names, got, want)
				}
				s.Close()
			}
		})
	}
}

func (m *serviceManager) copyNames() (names []string) {
	for _, s := range m.store {
		names = append(names, s.name)
	}
	return names
}

// describeServed returns the name, the uids, and the allowlist of the only served project.
// It checks that clients can connect to the project.
func describeServed(t *testing.T, m *serviceManager, status schema.StatusResponse) string {
	t.Helper()
	if len(status.Projects) == 0 && status.Problems == nil {
		return "nothing"
	}
	if len(status.Projects) != 1 || status.Problems != nil {
		t.Errorf("the projects are %+v, and the problems are %+v, want one project", status.Projects, status.Problems)
		return "several projects"
	}
	name := status.Projects[0].Name
	if !canPing(m.projectSocket(string(name))) {
		t.Errorf("project %s is not served", name)
	}
	var text string
	m.withAdmin(func(admin *client.Admin) error {
		p, err := admin.Inspect(t.Context(), name)
		_, allowlist, _ := strings.Cut(p.Manifest, "secrets:\n  ")
		text = strings.TrimSpace(string(name) + " uids " + fmt.Sprint(p.AllowUIDs) + " allows " + strings.TrimSuffix(allowlist, ":\n"))
		return err
	})
	return text
}

// TestOldRegistrationNeverWins lets the service manager ignore the removal of a stored registration.
// The descriptor store then still contains an older registration of the project. After another
// change and a restart, the broker must serve the newest registration.
func TestOldRegistrationNeverWins(t *testing.T) {
	for name, change := range map[string]func(*serviceManager) error{
		"uids": func(m *serviceManager) error {
			_, err := m.registerAt("api", "/nowhere/api", func(r *schema.RegisterRequest) { r.Replace, r.AllowUIDs = true, []uint32{1} })
			return err
		},
		"unregister and register": func(m *serviceManager) error {
			m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "api") })
			_, err := m.registerAt("api", "/nowhere/api", func(r *schema.RegisterRequest) { r.AllowUIDs = []uint32{1} })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newServiceManager(t, 100)
			s := m.start()
			m.register("api", "OLD")
			m.mu.Lock()
			m.ignored = "registration@2"
			m.mu.Unlock()
			for _, text := range []string{manifestText("api", "OLDER"), manifestText("api", "OLD")} {
				m.withAdmin(func(admin *client.Admin) error {
					_, err := admin.Reload(t.Context(), schema.ReloadRequest{Name: "api", Manifest: &text})
					return err
				})
			}
			if err := change(m); err != nil {
				t.Fatal(err)
			}
			m.sync()
			s.Close()
			if got := describeServed(t, m, m.start().Status()); got != "api uids [1] allows A" {
				t.Errorf("with the stored file descriptors %v, the next broker serves %s", m.storedNames(), got)
			}
		})
	}
}
