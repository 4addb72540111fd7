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

// TestRestartKeepsListenersAndRegistrations stops a broker and starts another broker with
// the same listener. The second broker must answer a request that was sent while no
// broker was running. It must serve the manifest that was approved last.
func TestRestartKeepsListenersAndRegistrations(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	m.register("api", "A")
	changed := manifestText("api", "B")
	m.withAdmin(func(admin *client.Admin) error {
		_, err := admin.Reload(context.Background(), schema.ReloadRequest{Name: "api", Manifest: &changed})
		return err
	})
	waitUntil(t, func() bool { return slices.Equal(m.storedNames(), []string{"project-api", "registration@2"}) })
	for round := range 5 {
		before := s.Status().InstanceID
		s.Shutdown(context.Background())
		// The connection waits in the listener's backlog, because no broker is running.
		waiting := connect(t, m.projectSocket("api"))
		if _, err := io.WriteString(waiting, `{"op":"get","name":"B","wait_ms":20000}`+"\n"); err != nil {
			t.Fatal(err)
		}
		s = m.start()
		m.push(tripwire)
		if answer := waiting.readLine(t); answer != `{"ok":true,"value":"`+tripwire+`"}` {
			t.Errorf("round %d: the answer to the waiting request is %q", round, answer)
		}
		status := s.Status()
		if status.InstanceID == before || status.DescriptorStore != schema.DescriptorStoreKept || len(status.Projects) != 1 {
			t.Errorf("round %d: the status is %+v", round, status)
		}
		if answer := connect(t, m.projectSocket("api")).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, "denied") {
			t.Errorf("round %d: the broker serves the older manifest: %s", round, answer)
		}
	}
	named, err := os.Readlink(m.dir + "/run/projects/api")
	if err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(m.dir + "/run/devcontainers/" + string(devcontainerIDOf("api"))); err != nil || target != "../projects/"+named {
		t.Errorf("the link of the dev container leads to %q, error %v, but the link api leads to %q", target, err, named)
	}
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "api") })
	waitUntil(t, func() bool { return len(m.storedNames()) == 0 })
}

// TestDescriptorStoreWithoutRoom uses file descriptor stores that are too small for all
// projects. The broker must serve every project, and status must report that the store is
// too small. A project has two file descriptors. If the store contains only one of them,
// the broker must remove it.
func TestDescriptorStoreWithoutRoom(t *testing.T) {
	for _, c := range []struct {
		max  int
		kept []string
	}{
		{4, []string{"project-one", "registration@1"}},
		{2, []string{}}, // no room for the pipe with which the broker checks the store
		{1, []string{}},
		{0, []string{}},
	} {
		m := newServiceManager(t, c.max)
		s := m.start()
		m.register("one", "A")
		m.register("two", "A")
		// Wait for the removal, because the service manager does not confirm it.
		waitUntil(t, func() bool { return slices.Equal(m.storedNames(), c.kept) })
		if state := s.Status().DescriptorStore; state != schema.DescriptorStoreRefused {
			t.Errorf("with room for %d file descriptors, the state of the store is %s", c.max, state)
		}
		m.push(tripwire)
		for _, project := range []string{"one", "two"} {
			if answer := connect(t, m.projectSocket(project)).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
				t.Errorf("with room for %d file descriptors, the answer of project %s is %s", c.max, project, answer)
			}
		}
		s.Shutdown(context.Background())
		if n := len(m.start().Status().Projects); n != len(c.kept)/2 {
			t.Errorf("with room for %d file descriptors, %d projects are served after the restart", c.max, n)
		}
	}
}

// TestFailedRestoreRemovesNewSocket makes the restore of a project fail after the broker
// has created a new socket file. The broker must remove the socket file, because no
// process would listen on it.
func TestFailedRestoreRemovesNewSocket(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	m.register("api", "A")
	s.Shutdown(context.Background())
	if err := os.Remove(m.projectSocket("api")); err != nil {
		t.Fatal(err)
	}
	link := m.dir + "/run/devcontainers/" + string(devcontainerIDOf("api"))
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	// A directory with content prevents the broker from creating the link.
	if err := os.MkdirAll(link+"/full", 0o755); err != nil {
		t.Fatal(err)
	}
	if n := len(m.start().Status().Projects); n != 0 {
		t.Fatalf("%d projects are served after a failed restore, want none", n)
	}
	if _, err := os.Lstat(m.projectSocket("api")); !os.IsNotExist(err) {
		t.Errorf("the broker did not remove the new socket file: %v", err)
	}
}
