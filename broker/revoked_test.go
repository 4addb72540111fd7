package broker_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// A brokerProcess is a broker in its own process, so that a test can kill it.
type brokerProcess struct {
	m      *serviceManager
	cmd    *exec.Cmd
	stdin  io.Writer
	stdout *bufio.Scanner
}

// startProcess runs TestBrokerProcess in another process, and waits until the broker serves.
func (m *serviceManager) startProcess() *brokerProcess {
	m.t.Helper()
	p := &brokerProcess{m: m, cmd: exec.Command(os.Args[0], "-test.run=^TestBrokerProcess$", "-test.v")}
	p.cmd.ExtraFiles = m.inheritedFiles()
	var names []string
	for _, file := range p.cmd.ExtraFiles {
		defer file.Close()
		names = append(names, file.Name())
	}
	p.cmd.Env = append(os.Environ(), "KEYHATCH_TEST_BROKER="+m.dir, "KEYHATCH_TEST_FILES="+strings.Join(names, ","))
	in, err := p.cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	p.stdin, p.stdout = in, bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(p.kill)
	p.waitFor("serving")
	return p
}

func (p *brokerProcess) waitFor(line string) {
	p.m.t.Helper()
	for p.stdout.Scan() {
		if p.stdout.Text() == line {
			return
		}
	}
	p.m.t.Fatalf("the broker process ended and did not print %q", line)
}

// applyDeclarations makes the broker read the declared projects again, as SIGHUP does.
func (p *brokerProcess) applyDeclarations() {
	p.m.t.Helper()
	fmt.Fprintln(p.stdin, "apply")
	p.waitFor("applied")
}

// kill ends the broker with SIGKILL. The service manager still gets the messages that the broker
// sent before.
func (p *brokerProcess) kill() {
	if p.cmd.ProcessState == nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	}
}

// restart kills the broker and starts another one.
func (p *brokerProcess) restart() *brokerProcess {
	p.m.t.Helper()
	p.kill()
	p.m.sync()
	return p.m.startProcess()
}

// TestBrokerProcess is not a test. It is the code that startProcess runs in another process.
func TestBrokerProcess(t *testing.T) {
	dir := os.Getenv("KEYHATCH_TEST_BROKER")
	if dir == "" {
		return
	}
	m := &serviceManager{t: t, dir: dir}
	m.admin = os.NewFile(3, "admin")
	config := m.config()
	for i, name := range strings.Split(os.Getenv("KEYHATCH_TEST_FILES"), ",")[1:] {
		config.Inherited = append(config.Inherited, os.NewFile(uintptr(4+i), name))
	}
	s, err := broker.New(config)
	if err != nil {
		t.Fatal(err)
	}
	s.WaitUntilStored()
	fmt.Println("serving")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		s.ApplyDeclarations()
		fmt.Println("applied")
	}
	s.Close()
}

// expect gets a secret of a project. The answer must contain want.
func (m *serviceManager) expect(project, secret, want string) {
	m.t.Helper()
	if answer := connect(m.t, m.projectSocket(project)).request(m.t, `{"op":"get","name":"`+secret+`"}`); !strings.Contains(answer, want) {
		m.t.Errorf("the answer to a get of %s in project %s is %s, want %s", secret, project, answer, want)
	}
}

func (m *serviceManager) expectProjects(want ...string) {
	m.t.Helper()
	m.withAdmin(func(admin *client.Admin) error {
		status, err := admin.Status(context.Background())
		var names []string
		for _, p := range status.Projects {
			names = append(names, string(p.Name))
		}
		if !slices.Equal(names, want) || status.Problems != nil {
			m.t.Errorf("the projects are %v, want %v, and the problems are %+v", names, want, status.Problems)
		}
		return err
	})
}

// TestRevocationOfStoredProjectSurvivesKill kills the broker immediately after it has
// confirmed a revocation. The next broker must not give access to what was revoked.
func TestRevocationOfStoredProjectSurvivesKill(t *testing.T) {
	m := newServiceManager(t, 100)
	p := m.startProcess()
	m.register("api", "A", "B")
	m.register("web", "A")
	m.push(tripwire)
	m.expect("api", "B", tripwire)
	fewer := manifestText("api", "A")
	m.withAdmin(func(admin *client.Admin) error {
		_, err := admin.Reload(t.Context(), schema.ReloadRequest{Name: "api", Manifest: &fewer})
		return err
	})
	p = p.restart()
	m.push(tripwire)
	m.expect("api", "A", tripwire)
	m.expect("api", "B", `"denied"`)
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(t.Context(), "web") })
	p = p.restart()
	m.expectProjects("api")
	if canPing(m.projectSocket("web")) {
		t.Error("the broker serves a project that was unregistered")
	}
	m.push(tripwire)
	m.withAdmin(func(admin *client.Admin) error { return admin.Clear(t.Context()) })
	p = p.restart()
	m.expect("api", "A", `"not_loaded"`)
	p.applyDeclarations()
	m.expectProjects("api")
}

// TestRevocationOfDeclaredProjectSurvivesKill kills the broker immediately after each step of
// a revocation. The next broker must not give access to what was revoked.
func TestRevocationOfDeclaredProjectSurvivesKill(t *testing.T) {
	m := newServiceManager(t, 100)
	declare := func(name string, secrets ...string) string {
		text := manifestText(name, secrets...)
		m.declare(manifest.Declaration{Name: schema.ProjectName(name), Path: "/nowhere/" + name, Manifest: text})
		return text
	}
	remove := func(name string) {
		if err := os.Remove(m.dir + "/projects.d/" + name + ".yaml"); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"api", "old", "web"} {
		declare(name, "A", "B")
	}
	p := m.startProcess()
	// Kill the broker after keyhatchctl has written the declaration, and before keyhatchctl sends
	// its request. While no broker runs, a client requests the revoked secret and waits.
	text := declare("api", "A")
	p.kill()
	waiting := connect(t, m.projectSocket("api"))
	if _, err := io.WriteString(waiting, `{"op":"get","name":"B","wait_ms":20000}`+"\n"); err != nil {
		t.Fatal(err)
	}
	p = p.restart()
	m.push(tripwire)
	if answer := waiting.readLine(t); !strings.Contains(answer, `"denied"`) {
		t.Errorf("the answer to a client that waits for a revoked secret is %s", answer)
	}
	m.expect("api", "A", tripwire)
	// Kill the broker after it has answered the request of keyhatchctl.
	text = declare("api")
	m.withAdmin(func(admin *client.Admin) error {
		_, err := admin.Register(t.Context(), schema.RegisterRequest{Name: "api", ProjectPath: "/nowhere/api", Manifest: &text, Declared: true, Replace: true})
		return err
	})
	p = p.restart()
	m.push(tripwire)
	m.expect("api", "A", `"denied"`)
	remove("web")
	p = p.restart()
	m.expectProjects("api", "old")
	remove("old")
	m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(t.Context(), "old") })
	p = p.restart()
	m.expectProjects("api")
	remove("api")
	p.applyDeclarations()
	p = p.restart()
	m.expectProjects()
	p.applyDeclarations()
	m.expectProjects()
	if names := m.storedNames(); len(names) > 0 {
		t.Errorf("the descriptor store contains %v after all projects were removed", names)
	}
}

// TestConcurrentChangesOfOneProject registers, renames, changes, and unregisters one project
// on several admin connections. Afterwards, the descriptor store must contain exactly the
// served project, and no client may reach a project that was unregistered.
func TestConcurrentChangesOfOneProject(t *testing.T) {
	m := newServiceManager(t, 100)
	s := m.start()
	m.push(tripwire)
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	change := func(admin *client.Admin, n int) {
		name := schema.ProjectName([]string{"api", "renamed"}[n%2])
		text := manifestText(string(name), "A", fmt.Sprint("B", n%3))
		// The errors do not matter, because other connections change the same project.
		admin.Register(t.Context(), schema.RegisterRequest{Name: name, ProjectPath: "/nowhere/api", Manifest: &text, Replace: n%4 > 0, AllowUIDs: []uint32{uint32(n % 2)}})
		admin.Reload(t.Context(), schema.ReloadRequest{Name: name, Manifest: &text})
		if n%3 == 0 {
			admin.Unregister(t.Context(), name)
		}
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			admin, err := client.DialAdmin(t.Context(), m.adminSocket())
			if err != nil {
				t.Error(err)
				return
			}
			defer admin.Close()
			for n := range rounds {
				change(admin, n+worker)
			}
		})
	}
	wg.Wait()
	m.sync()
	projects := s.Status().Projects
	if len(projects) > 1 {
		t.Errorf("several projects have the same path: %+v", projects)
	}
	if stored := m.storedNames(); len(stored) != 2*len(projects) {
		t.Errorf("the descriptor store contains %v, but the projects are %+v", stored, projects)
	}
	s.Close()
	s = m.start()
	if again := s.Status().Projects; len(again) != len(projects) || len(again) == 1 && (again[0].Name != projects[0].Name || again[0].ManifestSHA256 != projects[0].ManifestSHA256) {
		t.Errorf("after a restart, the projects are %+v, want %+v", again, projects)
	}
	for _, p := range projects {
		m.withAdmin(func(admin *client.Admin) error { return admin.Unregister(t.Context(), p.Name) })
	}
	m.sync()
	if stored := m.storedNames(); len(stored) > 0 {
		t.Errorf("after unregister, the descriptor store contains %v", stored)
	}
	for _, name := range []string{"api", "renamed"} {
		if canPing(m.projectSocket(name)) {
			t.Errorf("after unregister, clients reach the project under the name %s", name)
		}
	}
}
