package broker_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestBlockedNameDelaysNobodyElse registers a project while a blocked directory exists at the
// path where the broker must create the link with the project's name. If a container is started
// before its project is registered, the container engine creates such a directory, and the
// container can block the directory. The registration must fail. During this time, the broker must
// answer other requests.
func TestBlockedNameDelaysNobodyElse(t *testing.T) {
	m := newServiceManager(t, 100)
	m.start()
	m.register("web", "A")
	m.push(tripwire)
	dir := filepath.Join(m.dir, "run/projects/api")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	blocked := testenv.BlockDirectory(t, dir)
	registered := make(chan error)
	go func() { // ends when the test receives from registered
		_, err := m.registerAt("api", "/nowhere/api", nil)
		registered <- err
	}()
	<-blocked.Used
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m.withAdmin(func(admin *client.Admin) error {
		status, err := admin.Status(ctx)
		if err == nil && len(status.Projects) != 1 {
			t.Errorf("while the name of project api is blocked, the projects are %+v", status.Projects)
		}
		return err
	})
	if err := <-registered; err == nil || !strings.Contains(err.Error(), "may be blocking") || client.CodeOf(err) != schema.CodeInternalError {
		t.Errorf("the error of the registration is %v", err)
	}
	if answer := connect(t, m.projectSocket("web")).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
		t.Errorf("after the registration failed, the answer of project web is %s", answer)
	}
	blocked.Unblock()
	if _, err := m.registerAt("api", "/nowhere/api", nil); err != nil || !canPing(m.projectSocket("api")) {
		t.Errorf("after the directory is usable again, the error of the registration is %v", err)
	}
}

// TestBlockedProjectsDoNotDelayStart starts a broker while the directories of some projects
// are blocked. The broker must serve the other projects, and also the blocked project whose
// listener is in the descriptor store. The status must report the remaining blocked projects.
// The broker must serve them as soon as their directories are usable again.
func TestBlockedProjectsDoNotDelayStart(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	m.register("web", "A")
	var blocked []*testenv.BlockedDir
	block := func(name string) {
		dir, err := filepath.EvalSymlinks(filepath.Dir(m.projectSocket(name)))
		if err != nil {
			t.Fatal(err)
		}
		blocked = append(blocked, testenv.BlockDirectory(t, dir))
	}
	// The listener of project stored is in the descriptor store. The listener of project lost
	// is not.
	m.register("stored", "A")
	m.register("lost", "A")
	for _, name := range []schema.ProjectName{"declared", "undeclared"} {
		m.declare(manifest.Declaration{Name: name, Path: "/nowhere/" + string(name), Manifest: manifestText(string(name), "A")})
	}
	s.ApplyDeclarations()
	s.Close()
	m.mu.Lock()
	m.store = slices.DeleteFunc(m.store, func(s storedDescriptor) bool {
		isLost := s.name == "project-lost" || strings.HasSuffix(strings.Split(s.name, "@")[0], "declared")
		if isLost {
			unix.Close(s.fd)
		}
		return isLost
	})
	m.mu.Unlock()
	for _, name := range []string{"stored", "lost", "declared", "undeclared"} {
		block(name)
	}
	s = m.start()
	m.push(tripwire)
	names := func() (served, problems []string) {
		status := s.Status()
		for _, p := range status.Projects {
			served = append(served, string(p.Name))
		}
		for _, p := range status.Problems {
			problems = append(problems, p.Project+" "+string(p.Problem))
			if !strings.Contains(p.Message, "may be blocking") {
				t.Errorf("the message of the problem is %q", p.Message)
			}
		}
		return served, problems
	}
	served, problems := names()
	if !slices.Equal(served, []string{"stored", "web"}) {
		t.Errorf("while four directories are blocked, the broker serves %v", served)
	}
	if !slices.Equal(problems, []string{"declared declaration_not_served", "undeclared declaration_not_served", "lost registration_not_restored"}) {
		t.Errorf("while four directories are blocked, the problems are %v", problems)
	}
	if answer := connect(t, m.projectSocket("web")).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
		t.Errorf("while four directories are blocked, the answer of project web is %s", answer)
	}
	// A project that is no longer declared must not be served later.
	if err := os.Remove(m.dir + "/projects.d/undeclared.yaml"); err != nil {
		t.Fatal(err)
	}
	if err := s.ApplyDeclarations(); err == nil || !strings.Contains(err.Error(), "declared.yaml: ") {
		t.Errorf("the error for a blocked declared project is %v", err)
	}
	for _, b := range blocked {
		b.Unblock()
	}
	waitUntil(t, func() bool {
		served, problems = names()
		return slices.Equal(served, []string{"declared", "lost", "stored", "web"}) && problems == nil
	})
	for _, name := range served {
		waitUntil(t, func() bool { return canPing(m.projectSocket(name)) })
	}
	// The projects that were served late must survive a restart, too.
	s.Close()
	s = m.start()
	if again, _ := names(); !slices.Equal(again, served) {
		t.Errorf("after a restart, the broker serves %v, want %v", again, served)
	}
}

// TestUnregisterUnservedProject unregisters a declared project and a stored project while the
// broker cannot serve them. The broker must not serve them when their directories are usable
// again. It must serve the declared project only after it has read the declarations again.
func TestUnregisterUnservedProject(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	names := []string{"declared", "stored", "other"}
	m.declare(manifest.Declaration{Name: "declared", Path: "/nowhere/declared", Manifest: manifestText("declared", "A")})
	s.ApplyDeclarations()
	m.register("stored", "A")
	m.register("other", "A")
	s.Shutdown(context.Background())
	for _, name := range names {
		if err := os.Remove(m.projectSocket(name)); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(m.projectSocket(name)+"/x", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s = m.start()
	if status := s.Status(); len(status.Projects) != 0 || len(status.Problems) != len(names) {
		t.Fatalf("while the directories are blocked, the status is %+v", status)
	}
	for _, name := range []schema.ProjectName{"declared", "stored"} {
		m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(t.Context(), name) })
	}
	waitUntil(t, func() bool { return strings.Count(m.log.String(), `"event":"project.unregistered"`) == 2 })
	for _, name := range names {
		if err := os.RemoveAll(m.projectSocket(name)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, want ...string) {
		t.Helper()
		waitUntil(t, func() bool { return canPing(m.projectSocket(want[len(want)-1])) })
		var served []string
		for _, p := range s.Status().Projects {
			served = append(served, string(p.Name))
		}
		if !slices.Equal(served, want) {
			t.Errorf("%s, the broker serves %v, want %v", when, served, want)
		}
	}
	check("after the directories are usable again", "other")
	if problems := s.Status().Problems; len(problems) != 1 || problems[0].Project != "declared" || problems[0].Problem != schema.ProblemNotApplied {
		t.Errorf("the problems are %+v", problems)
	}
	s.ApplyDeclarations()
	check("after the declarations were read again", "declared", "other")
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(t.Context(), "declared") })
	s.Shutdown(context.Background())
	s = m.start()
	check("after a restart", "declared", "other")
}
