package broker_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestUnexpectedDescriptorsAreRefused checks that the broker does not start if it
// inherits unexpected file descriptors. The broker must start if a crash left unusable
// file descriptors in the store.
func TestUnexpectedDescriptorsAreRefused(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	m.register("api", "A")
	s.Shutdown(context.Background())
	refused := func(want string, files ...*os.File) {
		t.Helper()
		config := m.config()
		config.Inherited = files
		s, err := broker.New(config)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("broker.New returned the error %v, want an error that contains %q", err, want)
		}
	}
	all := func() []*os.File { return m.inheritedFiles() }
	refused("no file descriptor named admin", all()[1:]...)
	refused(`"other"`, append(all(), m.dup(int(m.admin.Fd()), "other"))...)
	refused(`"LISTEN_FD_9"`, append(all(), m.dup(int(m.admin.Fd()), "LISTEN_FD_9"))...)
	refused("two file descriptors named admin", append(all(), m.dup(int(m.admin.Fd()), "admin"))...)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	refused("not a listening socket", m.dup(int(null.Fd()), "admin"))

	// After a crash, the store can contain a registration without seals, a listener
	// without a registration, and the pipe of an interrupted call of Store.Verify.
	unsealed, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(unsealed)
	m.handleMessage([]string{"FDSTORE=1", "FDNAME=registration@0"}, []int{dupFD(t, unsealed)})
	m.handleMessage([]string{"FDSTORE=1", "FDNAME=project-evil"}, []int{dupFD(t, int(m.admin.Fd()))})
	m.handleMessage([]string{"FDSTORE=1", "FDNAME=probe"}, []int{dupFD(t, unsealed)})
	// The store can also contain two registrations of one project. This happens if the
	// broker is killed after it has stored the new registration and before it has removed
	// the old registration. The order of the two registrations in the store must not
	// matter.
	for name, front := range map[string]bool{"first": true, "last": false} {
		m.mu.Lock()
		i := slices.IndexFunc(m.store, func(s storedDescriptor) bool { return strings.HasPrefix(s.name, "registration@") })
		last := storedDescriptor{m.store[i].name, dupFD(t, m.store[i].fd)}
		m.mu.Unlock()
		s = m.start()
		changed := manifestText("api", "A", strings.ToUpper(name))
		m.withAdmin(func(admin *client.Admin) error {
			_, err := admin.Reload(context.Background(), schema.ReloadRequest{Name: "api", Manifest: &changed})
			return err
		})
		s.Shutdown(context.Background())
		m.mu.Lock()
		if front {
			m.store = slices.Insert(m.store, 0, last)
		} else {
			m.store = append(m.store, last)
		}
		m.mu.Unlock()
		s = m.start()
		if answer := connect(t, m.projectSocket("api")).request(t, `{"op":"info"}`); !strings.Contains(answer, strings.ToUpper(name)) {
			t.Errorf("the broker serves the older manifest: %s", answer)
		}
		s.Shutdown(context.Background())
	}
	s = m.start()
	if status := s.Status(); len(status.Projects) != 1 || status.Projects[0].Name != "api" {
		t.Errorf("the served projects are %+v, want only api", status.Projects)
	}
	waitUntil(t, func() bool { return slices.Equal(m.storedNames(), []string{"project-api", "registration@3"}) })
}
