package broker_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// registerAt registers a project with a name and a path.
func (m *serviceManager) registerAt(name, path string, change func(*schema.RegisterRequest)) (socket string, err error) {
	m.t.Helper()
	text := manifestText(name, "A")
	request := schema.RegisterRequest{Name: schema.ProjectName(name), ProjectPath: path, Manifest: &text}
	if change != nil {
		change(&request)
	}
	m.withAdmin(func(admin *client.Admin) error {
		response, registerErr := admin.Register(context.Background(), request)
		socket, err = response.SocketPath, registerErr
		return nil
	})
	return socket, err
}

func replace(r *schema.RegisterRequest) { r.Replace = true }

// TestReusedNameDoesNotReachOldDirectory registers a project at another path under a name
// that was used before. A container that still mounts the directory of the old project
// must neither reach the new project nor block its socket.
func TestReusedNameDoesNotReachOldDirectory(t *testing.T) {
	m := newServiceManager(t, 100)
	m.start()
	m.push(tripwire)
	if _, err := m.registerAt("api", "/evil/api", nil); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(m.dir, "run/projects/api")
	mounted, err := filepath.EvalSymlinks(link) // an engine mounts the directory itself
	if err != nil {
		t.Fatal(err)
	}
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "api") })

	// A container that mounts the link would get the new directory at its next start. So
	// the name stays with the old path until the operator removes the link.
	if _, err := m.registerAt("api", "/good/api", nil); client.CodeOf(err) != schema.CodeProjectExists || !strings.Contains(err.Error(), link) {
		t.Errorf("the used name is not refused: %v", err)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	// The container puts a socket where the socket of its project was.
	stop := listenInOtherProcess(t, filepath.Join(mounted, "broker.sock"))
	defer stop()
	if _, err := m.registerAt("api", "/good/api", nil); err != nil {
		t.Fatal(err)
	}
	if answer := connect(t, m.projectSocket("api")).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
		t.Errorf("the new project gets %s", answer)
	}
	current, err := filepath.EvalSymlinks(link)
	if err != nil || current == mounted {
		t.Errorf("the name leads to the old directory %s, error %v", current, err)
	}
	// The same path finds its directory again, under any name.
	if _, err := m.registerAt("other", "/evil/api", nil); err != nil {
		t.Fatal(err)
	}
	if again, err := filepath.EvalSymlinks(filepath.Join(m.dir, "run/projects/other")); err != nil || again != mounted {
		t.Errorf("the path has the directory %s, error %v, want %s", again, err, mounted)
	}
}

// TestDirectoryAtNameOfProject registers a project whose name is a directory, because a
// container engine created it.
func TestDirectoryAtNameOfProject(t *testing.T) {
	m := newServiceManager(t, 100)
	m.start()
	for name, content := range map[string]string{"empty": "", "full": "x"} {
		dir := filepath.Join(m.dir, "run/projects", name)
		if err := os.MkdirAll(filepath.Join(dir, content), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := m.registerAt(name, "/nowhere/"+name, nil)
		if (err == nil) != (content == "") || err != nil && !strings.Contains(err.Error(), dir+" is a directory with content") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(m.dir, "run/projects/full/x")); err != nil {
		t.Errorf("the content of the directory is gone: %v", err)
	}
	if !canPing(m.projectSocket("empty")) {
		t.Error("the project whose directory was empty is not served")
	}
}

// TestRegisterReplacesRegistration changes each part of a registration.
func TestRegisterReplacesRegistration(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	m.push(tripwire)
	id := []schema.DevcontainerID{schema.DevcontainerID(strings.Repeat("b", 52))}
	if _, err := m.registerAt("api", "/nowhere/My App", func(r *schema.RegisterRequest) { r.DevcontainerIDs = id }); err != nil {
		t.Fatal(err)
	}
	if _, err := m.registerAt("api", "/nowhere/My App", nil); client.CodeOf(err) != schema.CodeProjectExists {
		t.Errorf("without replace, the error is %v", err)
	}
	link := filepath.Join(m.dir, "run/devcontainers", string(id[0]))

	// The manifest and the IDs change, and connections stay open.
	open := connect(t, m.projectSocket("api"))
	changed := manifestText("api", "B")
	if _, err := m.registerAt("api", "/nowhere/My App", func(r *schema.RegisterRequest) { r.Replace, r.Manifest = true, &changed }); err != nil {
		t.Fatal(err)
	}
	if answer := open.request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, "denied") {
		t.Errorf("the old manifest is still in effect: %s", answer)
	}
	if _, err := os.Lstat(link); !os.IsNotExist(err) {
		t.Errorf("the link of an ID that is gone still exists: %v", err)
	}

	// A uid that is no longer allowed loses its connections.
	if _, err := m.registerAt("api", "/nowhere/My App", func(r *schema.RegisterRequest) { r.Replace, r.AllowUIDs = true, []uint32{4242} }); err != nil {
		t.Fatal(err)
	}
	io.WriteString(open, `{"op":"ping"}`+"\n")
	if answer, _ := io.ReadAll(open); len(answer) > 0 {
		t.Errorf("a connection is still open after the uids changed: %s", answer)
	}

	// Under a new name, the old name leads to the same project.
	if _, err := m.registerAt("renamed", "/nowhere/My App", replace); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"renamed", "api"} {
		if answer := connect(t, m.projectSocket(name)).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
			t.Errorf("%s: %s", name, answer)
		}
	}
	if projects := s.Status().Projects; len(projects) != 1 || projects[0].Name != "renamed" {
		t.Errorf("the projects are %+v", projects)
	}
	// A name that another project has is refused, and nothing changes.
	if _, err := m.registerAt("web", "/nowhere/web", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.registerAt("web", "/nowhere/My App", replace); client.CodeOf(err) != schema.CodeProjectExists || !strings.Contains(err.Error(), "/nowhere/web") {
		t.Errorf("a name of another project: %v", err)
	}
	s.Shutdown(context.Background())
	s = m.start()
	var names []string
	for _, p := range s.Status().Projects {
		names = append(names, string(p.Name))
	}
	if !slices.Equal(names, []string{"renamed", "web"}) || !canPing(m.projectSocket("renamed")) {
		t.Errorf("after a restart, the projects are %v", names)
	}
}

// TestStatusReportsDifferencesFromDeclarations creates each difference between the served
// and the declared projects.
func TestStatusReportsDifferencesFromDeclarations(t *testing.T) {
	m := newServiceManager(t, 100)
	declare := func(name string, secrets ...string) {
		m.declare(manifest.Declaration{Name: schema.ProjectName(name), Path: "/nowhere/" + name, Manifest: manifestText(name, secrets...)})
	}
	for _, name := range []string{"same", "reloaded", "edited", "removed"} {
		declare(name, "A")
	}
	s := m.start()
	if problems := s.Status().Problems; problems != nil {
		t.Fatalf("the problems are %+v, want none", problems)
	}
	// Another client than keyhatchctl reloads a manifest, and does not change the file.
	changed := manifestText("reloaded", "REVOKED_LATER")
	m.withAdmin(func(admin *client.Admin) error {
		_, err := admin.Reload(context.Background(), schema.ReloadRequest{Name: "reloaded", Manifest: &changed})
		return err
	})
	declare("edited", "B")
	if err := os.Remove(m.dir + "/projects.d/removed.yaml"); err != nil {
		t.Fatal(err)
	}
	declare("added", "A")
	m.writeDeclarationFile("invalid.yaml", "broken")
	m.writeDeclarationFile("rule.yaml", "path: /nowhere/rule\nmanifest: |\n  schema_version: 1\n  project: rule\n  secrets: {TRIPWIRE_NAME: {as: x}}\n")
	m.writeDeclarationFile("twice.yaml", "path: /nowhere/same\nmanifest: |\n  schema_version: 1\n  project: same\n  secrets: {}\n")
	check := func(want map[string]string) {
		t.Helper()
		got := s.Status().Problems
		if len(got) != len(want) {
			t.Errorf("%d problems, want %d: %+v", len(got), len(want), got)
		}
		for _, p := range got {
			text := string(p.Problem) + ": " + p.Message
			if want[p.Project] == "" || !strings.Contains(text, want[p.Project]) {
				t.Errorf("%s: %s, want %q", p.Project, text, want[p.Project])
			}
			if strings.Contains(p.Message, "TRIPWIRE_NAME") {
				t.Errorf("the status contains the name of a secret: %s", p.Message)
			}
		}
	}
	check(map[string]string{
		"reloaded": "differs_from_declaration: the served project and its declaration differ in: manifest",
		"edited":   "differs_from_declaration: the served project and its declaration differ in: manifest",
		"removed":  "differs_from_declaration: the declaration was removed",
		"added":    "declaration_not_served: the broker has not read the declaration yet",
		"invalid":  "declaration_not_served: invalid.yaml is not a valid declaration",
		"rule":     "declaration_not_served: the broker has not read",
		"twice":    "declaration_not_served: the broker has not read",
	})
	s.ApplyDeclarations()
	check(map[string]string{
		"invalid": "declaration_not_served: invalid.yaml is not a valid declaration",
		"rule":    "declaration_not_served: the declared project is not served: line 3 of the approved manifest violates a rule",
		"twice":   "declaration_not_served: the declared project is not served: same.yaml declares the same path",
	})
}

// TestStoredRegistrationThatBreaksRule restarts the broker with a stored registration that
// this version does not accept. The operator must see the problem after each restart, until
// the operator solves it.
func TestStoredRegistrationThatBreaksRule(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	m.register("api", "A")
	m.register("web", "A")
	s.Shutdown(context.Background())
	m.replaceStoredRegistration("api", func(r *schema.RegisterRequest) {
		text := "schema_version: 1\nproject: api\nsecrets: {TRIPWIRE_NAME: {as: x}}\n"
		r.Manifest = &text
	})
	for range 2 {
		s = m.start()
		status := s.Status()
		if len(status.Projects) != 1 || len(status.Problems) != 1 || status.Problems[0].Problem != schema.ProblemNotRestored || strings.Contains(status.Problems[0].Message, "TRIPWIRE_NAME") {
			t.Fatalf("the status is %+v", status)
		}
		s.Shutdown(context.Background())
	}
	s = m.start()
	m.register("api", "A")
	if problems := s.Status().Problems; problems != nil {
		t.Errorf("after a new registration, the problems are %+v", problems)
	}
	s.Shutdown(context.Background())
	m.replaceStoredRegistration("web", func(r *schema.RegisterRequest) { r.ProjectPath = "relative" })
	s = m.start()
	if problems := s.Status().Problems; len(problems) != 1 || problems[0].Project != "web" {
		t.Errorf("the problems are %+v", problems)
	}
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "web") })
	s.Shutdown(context.Background())
	s = m.start()
	if status := s.Status(); status.Problems != nil || len(status.Projects) != 1 {
		t.Errorf("after an unregister, the status is %+v", status)
	}
}

// replaceStoredRegistration changes a registration in the descriptor store, as an earlier
// version of the broker could have stored it.
func (m *serviceManager) replaceStoredRegistration(project string, change func(*schema.RegisterRequest)) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.store, func(s storedDescriptor) bool { return strings.HasPrefix(s.name, "registration-"+project+"@") })
	text := make([]byte, 1<<16)
	n, err := unix.Pread(m.store[i].fd, text, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	var registration schema.RegisterRequest
	if err := wire.Decode(text[:n], &registration, schema.MaxDepth); err != nil {
		m.t.Fatal(err)
	}
	change(&registration)
	if text, err = wire.Encode(registration); err != nil {
		m.t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("registration", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := unix.Write(fd, text); err != nil {
		m.t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		m.t.Fatal(err)
	}
	unix.Close(m.store[i].fd)
	m.store[i].fd = fd
}
