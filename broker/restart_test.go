package broker_test

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// TestRestartKeepsListenersAndRegistrations stops a daemon and starts another. A request that was made
// meanwhile is answered on the listener that both had, and what was approved
// last is what is served.
func TestRestartKeepsListenersAndRegistrations(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	m.register("api", "A")
	changed := manifestText("api", "B")
	m.withAdmin(func(admin *client.Admin) error {
		_, err := admin.Reload(context.Background(), schema.ReloadRequest{Name: "api", Manifest: &changed})
		return err
	})
	waitUntil(t, func() bool { return slices.Equal(m.storedNames(), []string{"project-api", "registration-api@2"}) })
	for round := range 5 {
		before := s.Status().InstanceID
		s.Shutdown(context.Background())
		waiting := connect(t, m.projectSocket("api")) // in the backlog: nobody accepts
		if _, err := io.WriteString(waiting, `{"op":"get","name":"B","wait_ms":20000}`+"\n"); err != nil {
			t.Fatal(err)
		}
		s = m.start()
		m.push(tripwire)
		if answer := waiting.readLine(t); answer != `{"ok":true,"value":"`+tripwire+`"}` {
			t.Errorf("round %d: what waited was answered %q", round, answer)
		}
		status := s.Status()
		if status.InstanceID == before || status.DescriptorStore != schema.DescriptorStoreKept || len(status.Projects) != 1 {
			t.Errorf("round %d: %+v", round, status)
		}
		if answer := connect(t, m.projectSocket("api")).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, "denied") {
			t.Errorf("round %d: the older manifest is served: %s", round, answer)
		}
	}
	if target, err := os.Readlink(m.dir + "/run/devcontainers/" + strings.Repeat("a", 52)); err != nil || target != "../projects/api" {
		t.Errorf("the dev container's link leads to %q, %v", target, err)
	}
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "api") })
	waitUntil(t, func() bool { return len(m.storedNames()) == 0 })
	if entries, _ := os.ReadDir(m.dir + "/run/devcontainers"); len(entries) != 0 {
		t.Error("after unregister the dev container's link is still there")
	}
}

// TestDescriptorStoreWithoutRoom has a store with room for one project, for half of one, and
// for none: what does not fit is served all the same, status says so, and
// nothing is left there that a restart would make half a project of.
func TestDescriptorStoreWithoutRoom(t *testing.T) {
	for _, c := range []struct {
		max  int
		kept []string
	}{
		{4, []string{"project-one", "registration-one@1"}},
		{2, []string{}}, // no room to see that it fits
		{1, []string{}},
		{0, []string{}},
	} {
		m := newServiceManager(t, c.max)
		s := m.start()
		m.register("one", "A")
		m.register("two", "A")
		// What was taken out is told and not answered.
		waitUntil(t, func() bool { return slices.Equal(m.storedNames(), c.kept) })
		if state := s.Status().DescriptorStore; state != schema.DescriptorStoreRefused {
			t.Errorf("room for %d: the state is %s", c.max, state)
		}
		m.push(tripwire)
		for _, project := range []string{"one", "two"} {
			if answer := connect(t, m.projectSocket(project)).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
				t.Errorf("room for %d: %s is not served: %s", c.max, project, answer)
			}
		}
		s.Shutdown(context.Background())
		if n := len(m.start().Status().Projects); n != len(c.kept)/2 {
			t.Errorf("room for %d: %d projects are back", c.max, n)
		}
	}
}
