package broker_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// declareMany declares n projects, whose names are p0, p1, and so on.
func (m *serviceManager) declareMany(n int) {
	m.t.Helper()
	for i := range n {
		name := fmt.Sprintf("p%d", i)
		m.declare(manifest.Declaration{Name: schema.ProjectName(name), Path: "/nowhere/" + name, Manifest: manifestText(name, "A")})
	}
}

// TestStartChecksStoreOnceForAllProjects starts a broker with several declared projects. The
// broker must store all projects. It must check only once whether they are stored, because each
// check takes time.
func TestStartChecksStoreOnceForAllProjects(t *testing.T) {
	m := newServiceManager(t, 100)
	m.declareMany(10)
	s := m.start()
	if state := s.Status().DescriptorStore; state != schema.DescriptorStoreKept {
		t.Errorf("the state of the store is %s", state)
	}
	m.sync() // wait until the pipe of the check is removed from the store
	if names := m.storedNames(); len(names) != 20 {
		t.Errorf("the store contains %q", names)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.checks != 2 { // one check before the broker stores projects, and one check afterwards
		t.Errorf("the broker checked the store %d times, want 2", m.checks)
	}
}

// TestStartServesBeforeProjectsAreStored starts a broker with several declared projects. While the
// service manager delays the first project, the broker must already answer a get. If the broker is
// stopped during this time, it must store all projects before it ends.
func TestStartServesBeforeProjectsAreStored(t *testing.T) {
	m := newServiceManager(t, 100)
	delay := make(chan struct{})
	m.mu.Lock()
	m.delay = delay
	m.mu.Unlock()
	endDelay := sync.OnceFunc(func() { close(delay) })
	t.Cleanup(endDelay)
	m.declareMany(2)
	s, err := broker.New(m.config())
	if err != nil {
		t.Fatal(err)
	}
	if state := s.Status().DescriptorStore; state != schema.DescriptorStoreKept { // New has waited for the service manager until the timeout
		t.Fatalf("the state of the store is %s", state)
	}
	m.push(tripwire)
	if answer := connect(t, m.projectSocket("p1")).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
		t.Errorf("the answer is %s", answer)
	}
	stopped := make(chan struct{})
	go func() { // ends after delay is closed
		defer close(stopped)
		s.Close()
	}()
	endDelay()
	<-stopped
	m.sync()
	if names := m.storedNames(); len(names) != 4 {
		t.Errorf("after the stop, the store contains %q", names)
	}
}

// TestStartWithoutRoomForAllProjects starts a broker with three declared projects and a store
// that has room for one project and one pipe. The broker must serve all projects. One project
// must be stored completely, and the other projects must not be stored at all.
func TestStartWithoutRoomForAllProjects(t *testing.T) {
	m := newServiceManager(t, 3)
	m.declareMany(3)
	s := m.start()
	if state := s.Status().DescriptorStore; state != schema.DescriptorStoreRefused {
		t.Errorf("the state of the store is %s", state)
	}
	m.push(tripwire)
	for _, project := range []string{"p0", "p1", "p2"} {
		if answer := connect(t, m.projectSocket(project)).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
			t.Errorf("the answer of project %s is %s", project, answer)
		}
	}
	m.sync()
	names := m.storedNames()
	if len(names) != 2 || !strings.HasPrefix(names[0], "project-p") || !strings.HasPrefix(names[1], "registration@") {
		t.Errorf("the store contains %q", names)
	}
	s.Shutdown(context.Background())
	if projects := m.start().Status().Projects; len(projects) != 3 || slices.ContainsFunc(projects, func(p schema.ProjectStatus) bool { return !p.Declared }) {
		t.Errorf("after the restart, the projects are %+v", projects)
	}
}
