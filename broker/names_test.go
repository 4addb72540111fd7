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

// registerAt registers a project with a name and a path. change can change the request
// before the test sends it.
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

// TestReusedNameDoesNotReachOldDirectory registers a new project with a name that another
// project used before. A container can still mount the directory of the old project. This
// container must not reach the new project, and must not block the new project's socket.
func TestReusedNameDoesNotReachOldDirectory(t *testing.T) {
	m := newServiceManager(t, 100)
	m.start()
	m.push(tripwire)
	if _, err := m.registerAt("api", "/evil/api", nil); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(m.dir, "run/projects/api")
	mounted, err := filepath.EvalSymlinks(link) // a container engine mounts the link's target
	if err != nil {
		t.Fatal(err)
	}
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "api") })

	// The container of the old project can still mount the link with the name api. If the broker
	// changed this link, the container would reach the new project after its next start. So
	// the broker must refuse the name for another path until the operator removes the link.
	if _, err := m.registerAt("api", "/good/api", nil); client.CodeOf(err) != schema.CodeProjectExists || !strings.Contains(err.Error(), link) {
		t.Errorf("the error for a name that another project used is %v", err)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	// A process of the old container listens at the path where the old project's socket was.
	stop := listenInOtherProcess(t, filepath.Join(mounted, "broker.sock"))
	defer stop()
	if _, err := m.registerAt("api", "/good/api", nil); err != nil {
		t.Fatal(err)
	}
	if answer := connect(t, m.projectSocket("api")).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
		t.Errorf("the answer to a get of the new project is %s", answer)
	}
	current, err := filepath.EvalSymlinks(link)
	if err != nil || current == mounted {
		t.Errorf("the link with the name points to %s, which is the old directory, or reading the link failed: %v", current, err)
	}
	// A project at the path of the old project gets the socket directory of the old project again,
	// even if the new project has another name.
	if _, err := m.registerAt("other", "/evil/api", nil); err != nil {
		t.Fatal(err)
	}
	if again, err := filepath.EvalSymlinks(filepath.Join(m.dir, "run/projects/other")); err != nil || again != mounted {
		t.Errorf("the directory of the old path is %s, error %v, want %s", again, err, mounted)
	}
}

// TestDirectoryAtNameOfProject registers projects while directories exist at the paths of the
// links with their names. A container engine can create such directories. The broker must replace
// a directory only if it is empty.
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
			t.Errorf("if the directory at the path of the link is %s, the error of register is %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(m.dir, "run/projects/full/x")); err != nil {
		t.Errorf("the content of the directory is gone: %v", err)
	}
	if !canPing(m.projectSocket("empty")) {
		t.Error("a project is not served, although the directory at the path of its link was empty")
	}
}

// TestRegisterReplacesRegistration registers a project again with a changed manifest,
// changed dev container IDs, changed uids, and a changed name. Each change must take
// effect. The last registration must also be served after a restart.
func TestRegisterReplacesRegistration(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	m.push(tripwire)
	id := []schema.DevcontainerID{schema.DevcontainerID(strings.Repeat("b", 52))}
	if _, err := m.registerAt("api", "/nowhere/My App", func(r *schema.RegisterRequest) { r.DevcontainerIDs = id }); err != nil {
		t.Fatal(err)
	}
	if _, err := m.registerAt("api", "/nowhere/My App", nil); client.CodeOf(err) != schema.CodeProjectExists {
		t.Errorf("registering a project again without the field replace: error %v", err)
	}
	link := filepath.Join(m.dir, "run/devcontainers", string(id[0]))

	// A change of the manifest and of the dev container IDs does not close connections.
	open := connect(t, m.projectSocket("api"))
	changed := manifestText("api", "B")
	if _, err := m.registerAt("api", "/nowhere/My App", func(r *schema.RegisterRequest) { r.Replace, r.Manifest = true, &changed }); err != nil {
		t.Fatal(err)
	}
	if answer := open.request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, "denied") {
		t.Errorf("after the manifest was replaced, the answer for a name of the old manifest is %s", answer)
	}
	if _, err := os.Lstat(link); err != nil {
		t.Errorf("the link of a removed dev container ID does not reserve the ID any more: %v", err)
	}

	// If the allowed uids change, the broker closes the connections of the project.
	if _, err := m.registerAt("api", "/nowhere/My App", func(r *schema.RegisterRequest) { r.Replace, r.AllowUIDs = true, []uint32{4242} }); err != nil {
		t.Fatal(err)
	}
	io.WriteString(open, `{"op":"ping"}`+"\n")
	if answer, _ := io.ReadAll(open); len(answer) > 0 {
		t.Errorf("a connection is still open after the allowed uids changed, and the answer is %s", answer)
	}

	// After the project was renamed, clients reach it by its new name and by its old name.
	if _, err := m.registerAt("renamed", "/nowhere/My App", replace); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"renamed", "api"} {
		if answer := connect(t, m.projectSocket(name)).request(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
			t.Errorf("the answer to a get under the name %s is %s", name, answer)
		}
	}
	if projects := s.Status().Projects; len(projects) != 1 || projects[0].Name != "renamed" {
		t.Errorf("the projects are %+v, want only the project renamed", projects)
	}
	// The broker refuses the name of another project, and then changes nothing.
	if _, err := m.registerAt("web", "/nowhere/web", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.registerAt("web", "/nowhere/My App", replace); client.CodeOf(err) != schema.CodeProjectExists || !strings.Contains(err.Error(), "/nowhere/web") {
		t.Errorf("the error for the name of another project is %v", err)
	}
	s.Shutdown(context.Background())
	s = m.start()
	var names []string
	for _, p := range s.Status().Projects {
		names = append(names, string(p.Name))
	}
	if !slices.Equal(names, []string{"renamed", "web"}) || !canPing(m.projectSocket("renamed")) {
		t.Errorf("after a restart, the projects are %v, want renamed and web", names)
	}
}

// TestClientsReachReplacedProject changes the uids or the name of a project again and again. A
// client that connects after the broker has acknowledged the change must get an answer. The
// endpoint that the broker closes because of the change must not accept this client.
func TestClientsReachReplacedProject(t *testing.T) {
	m := newServiceManager(t, 100)
	m.start()
	m.push(tripwire)
	for i := range 100 {
		name := []string{"api", "renamed"}[i/2%2]
		if _, err := m.registerAt(name, "/nowhere/api", func(r *schema.RegisterRequest) { r.Replace, r.AllowUIDs = true, []uint32{uint32(i)} }); err != nil {
			t.Fatal(err)
		}
		m.expect(name, "A", tripwire)
	}
}

// TestRegisterDryRunChangesNothing registers a project with dry_run. The broker must return the
// same response or error as without dry_run, and must not change anything.
func TestRegisterDryRunChangesNothing(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	dryRun := func(r *schema.RegisterRequest) { r.DryRun, r.Replace = true, true }
	expected, err := m.registerAt("api", "/nowhere/api", dryRun)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(m.dir, "run/projects/api")); !os.IsNotExist(err) {
		t.Errorf("the link with the name exists: %v", err)
	}
	if socket, err := m.registerAt("api", "/nowhere/api", nil); err != nil || socket != expected {
		t.Errorf("the socket is %s, error %v, but with dry_run it was %s", socket, err, expected)
	}
	if _, err := m.registerAt("renamed", "/nowhere/api", dryRun); err != nil {
		t.Error(err)
	}
	if _, err := m.registerAt("api", "/nowhere/other", dryRun); client.CodeOf(err) != schema.CodeProjectExists {
		t.Errorf("the error for the name of another project is %v", err)
	}
	if projects := s.Status().Projects; len(projects) != 1 || projects[0].Name != "api" {
		t.Errorf("the projects are %+v, want only the project api", projects)
	}
}

// TestStatusReportsDifferencesFromDeclarations creates several kinds of differences between
// the served projects and the declared projects. The status must report each difference.
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
	// A client reloads a manifest. Unlike keyhatchctl, this client does not change the
	// declaration file.
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
	m.writeDeclarationFile("invalid.yaml", "path: /nowhere/invalid\nTRIPWIRE_NAME: x\n")
	m.writeDeclarationFile("rule.yaml", "path: /nowhere/rule\nmanifest: |\n  schema_version: 1\n  project: rule\n  secrets: {TRIPWIRE_NAME: {as: x}}\n")
	m.writeDeclarationFile("twice.yaml", "path: /nowhere/same\nmanifest: |\n  schema_version: 1\n  project: same\n  secrets: {}\n")
	check := func(want map[string]string) {
		t.Helper()
		got := s.Status().Problems
		if len(got) != len(want) {
			t.Errorf("the status contains %d problems, want %d: %+v", len(got), len(want), got)
		}
		for _, p := range got {
			text := string(p.Problem) + ": " + p.Message
			if want[p.Project] == "" || !strings.Contains(text, want[p.Project]) {
				t.Errorf("the problem of project %s is %q, want %q", p.Project, text, want[p.Project])
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
		"added":    "declaration_not_served: the declaration was written, or the project was unregistered, after the broker had read the declarations",
		"invalid":  "declaration_not_served: invalid.yaml is not a valid declaration: line 2: unknown key ",
		"rule":     "declaration_not_served: the declaration was written",
		"twice":    "declaration_not_served: the declaration was written",
	})
	s.ApplyDeclarations()
	check(map[string]string{
		"invalid": "declaration_not_served: invalid.yaml is not a valid declaration: line 2: unknown key ",
		"rule":    "declaration_not_served: the declared project is not served: manifest line 3: (not shown): the value of as must be env or file",
		"twice":   "declaration_not_served: the declared project is not served: same.yaml declares the same path",
	})
}

// TestLogContainsNoSecretName checks that the log does not contain the name of a secret if a
// stored or declared manifest is invalid. The errors of the manifest contain this name.
func TestLogContainsNoSecretName(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	m.register("stored", "A")
	s.Shutdown(context.Background())
	invalid := "schema_version: 1\nproject: api\nsecrets: {TRIPWIRE_NAME: {as: x}}\n"
	m.replaceStoredRegistration("stored", func(r *schema.RegisterRequest) { r.Manifest = &invalid })
	m.declare(manifest.Declaration{Name: "declared", Path: "/nowhere/declared", Manifest: invalid})
	m.writeDeclarationFile("unknown.yaml", "TRIPWIRE_NAME: 1\n")
	s = m.start()
	s.Shutdown(context.Background())
	log := m.log.String()
	for _, want := range []string{
		`msg="cannot restore a project" project=stored error="manifest line 3: (not shown): the value of as must be env or file"`,
		`msg="cannot apply the declaration of a project" file=declared.yaml error="manifest line 3: (not shown): the value of as must be env or file"`,
		`msg="cannot apply the declaration of a project" file=unknown.yaml error=`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not contain %s", want)
		}
	}
	if strings.Contains(log, "TRIPWIRE_NAME") {
		t.Error("the log contains the name of a secret")
	}
	if t.Failed() {
		t.Log(log)
	}
}

// TestStoredRegistrationThatBreaksRule restarts the broker with a stored registration that
// this version of the broker does not accept. The status must show the problem after each
// restart until the operator registers or unregisters the project.
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
			t.Fatalf("the status does not report that project api was not restored: %+v", status)
		}
		if want := "manifest line 3: (not shown): the value of as must be env or file"; !strings.Contains(status.Problems[0].Message, want) {
			t.Errorf("the problem %q does not contain %q", status.Problems[0].Message, want)
		}
		m.withAdmin(func(admin *client.Admin) error {
			inspected, err := admin.Inspect(t.Context(), "api")
			if !inspected.Unserved || inspected.ProjectPath == "" || !strings.Contains(inspected.Manifest, "TRIPWIRE_NAME") {
				t.Errorf("the registration of the project that is not served is %+v", inspected)
			}
			if _, err := admin.Reload(t.Context(), schema.ReloadRequest{Name: "api"}); client.CodeOf(err) != schema.CodeProjectUnknown || !strings.Contains(err.Error(), "cannot serve project api") {
				t.Errorf("the error of a reload of the project that is not served is %v", err)
			}
			return err
		})
		s.Shutdown(context.Background())
	}
	s = m.start()
	m.register("api", "A")
	if problems := s.Status().Problems; problems != nil {
		t.Errorf("after the project was registered again, the problems are %+v, want none", problems)
	}
	s.Shutdown(context.Background())
	m.replaceStoredRegistration("web", func(r *schema.RegisterRequest) { r.ProjectPath = "relative" })
	s = m.start()
	if problems := s.Status().Problems; len(problems) != 1 || problems[0].Project != "web" {
		t.Errorf("with an invalid stored registration of project web, the problems are %+v", problems)
	}
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "web") })
	s.Shutdown(context.Background())
	s = m.start()
	if status := s.Status(); status.Problems != nil || len(status.Projects) != 1 {
		t.Errorf("after project web was unregistered, the status is %+v", status)
	}
}

// replaceStoredRegistration changes a registration in the descriptor store. Tests use it to
// create registrations that only an earlier version of the broker could have stored.
func (m *serviceManager) replaceStoredRegistration(project string, change func(*schema.RegisterRequest)) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var registration schema.RegisterRequest
	i := slices.IndexFunc(m.store, func(s storedDescriptor) bool {
		if !strings.HasPrefix(s.name, "registration@") {
			return false
		}
		text := make([]byte, 1<<16)
		n, err := unix.Pread(s.fd, text, 0)
		if err == nil {
			registration = schema.RegisterRequest{}
			err = wire.Decode(text[:n], &registration, schema.MaxDepth)
		}
		if err != nil {
			m.t.Fatal(err)
		}
		return string(registration.Name) == project
	})
	change(&registration)
	text, err := wire.Encode(registration)
	if err != nil {
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

// TestErrorQuotesPathOfOtherProject makes the broker return an error that contains the path of
// another project. The error must quote the path. Otherwise a path that untrusted code has chosen
// could look like a hint of keyhatch.
func TestErrorQuotesPathOfOtherProject(t *testing.T) {
	m := newServiceManager(t, 100)
	m.start()
	if _, err := m.registerAt("api", "/src/x hint: sudo\nid", nil); err != nil {
		t.Fatal(err)
	}
	want := `the name api is in use for the project at "/src/x\x20hint:\x20sudo\nid": choose another name`
	if _, err := m.registerAt("api", "/src/y", nil); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want %s", err, want)
	}
}
