package broker_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// A manager is a service manager as far as descriptors go: it keeps the admin
// listener and a descriptor store with room for max, and closes what it refuses,
// as systemd does (sd_notify(3)).
type manager struct {
	t      *testing.T
	dir    string
	socket *net.UnixConn
	admin  *os.File
	ended  chan struct{}

	mu    sync.Mutex
	max   int
	store []stored
}

type stored struct {
	name string
	fd   int
}

func newManager(t *testing.T, max int) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, dir: dir, max: max, ended: make(chan struct{})}
	if m.socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/notify", Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir+"/run/admin", 0o750); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", m.adminSocket())
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if m.admin, err = l.(*net.UnixListener).File(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	go m.serve() // ended by the socket's end, below
	t.Cleanup(func() {
		m.socket.Close()
		<-m.ended
		m.admin.Close()
		m.empty()
		os.RemoveAll(dir)
	})
	return m
}

func (m *manager) adminSocket() string { return m.dir + "/run/admin/admin.sock" }

func (m *manager) project(name string) string {
	return filepath.Join(m.dir, "run/projects", name, "broker.sock")
}

func (m *manager) serve() {
	defer close(m.ended)
	buffer, rights := make([]byte, 4096), make([]byte, 256)
	for {
		n, oobn, _, _, err := m.socket.ReadMsgUnix(buffer, rights)
		if err != nil {
			return
		}
		var fds []int
		if messages, err := unix.ParseSocketControlMessage(rights[:oobn]); err == nil && len(messages) > 0 {
			fds, _ = unix.ParseUnixRights(&messages[0])
		}
		m.take(strings.Split(string(buffer[:n]), "\n"), fds)
	}
}

func (m *manager) take(lines []string, fds []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := ""
	for _, line := range lines {
		if text, ok := strings.CutPrefix(line, "FDNAME="); ok {
			name = text
		}
	}
	if slices.Contains(lines, "FDSTOREREMOVE=1") {
		m.store = slices.DeleteFunc(m.store, func(s stored) bool {
			if s.name == name {
				unix.Close(s.fd)
			}
			return s.name == name
		})
	}
	for _, fd := range fds {
		if slices.Contains(lines, "FDSTORE=1") && len(m.store) < m.max {
			m.store = append(m.store, stored{name, fd})
		} else {
			unix.Close(fd) // refused, or a barrier
		}
	}
}

// empty is a stop of the service.
func (m *manager) empty() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.store {
		unix.Close(s.fd)
	}
	m.store = nil
}

func (m *manager) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := []string{}
	for _, s := range m.store {
		names = append(names, s.name)
	}
	slices.Sort(names)
	return names
}

// pass is what the daemon gets at its start: copies, with their names.
func (m *manager) pass() []*os.File {
	m.mu.Lock()
	defer m.mu.Unlock()
	files := []*os.File{m.dup(int(m.admin.Fd()), "admin")}
	for _, s := range m.store {
		files = append(files, m.dup(s.fd, s.name))
	}
	return files
}

func (m *manager) dup(fd int, name string) *os.File {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	return os.NewFile(uintptr(copied), name)
}

func (m *manager) config() broker.Config {
	log := slog.New(slog.DiscardHandler)
	audit, err := broker.OpenAudit("", io.Discard, false, log)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(audit.Close)
	return broker.Config{
		RuntimeDir: m.dir + "/run", AdminGID: -1, Audit: audit, Log: log, Version: "test",
		ProjectsDir: m.dir + "/projects.d", Inherited: m.pass(), NotifySocket: m.dir + "/notify",
	}
}

func (m *manager) start() *broker.Server {
	m.t.Helper()
	s, err := broker.New(m.config())
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(s.Close)
	return s
}

// with speaks to the admin socket.
func (m *manager) with(use func(*client.Admin) error) {
	m.t.Helper()
	admin, err := client.DialAdmin(context.Background(), m.adminSocket())
	if err != nil {
		m.t.Fatal(err)
	}
	defer admin.Close()
	if err := use(admin); err != nil {
		m.t.Fatal(err)
	}
}

func (m *manager) register(project string, names ...string) {
	m.t.Helper()
	text := manifestOf(project, names...)
	m.with(func(admin *client.Admin) error {
		_, err := admin.Register(context.Background(), schema.RegisterRequest{
			Name: schema.ProjectName(project), ProjectPath: "/nowhere/" + project, Manifest: &text,
			DevcontainerIDs: []schema.DevcontainerID{schema.DevcontainerID(strings.Repeat("a", 52))},
		})
		return err
	})
}

func (m *manager) push(value string) {
	m.t.Helper()
	m.with(func(admin *client.Admin) error {
		_, err := admin.Push(context.Background(), pushLine(schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: value}, "B": {Text: value}}}))
		return err
	})
}

// TestRestart stops a daemon and starts another. A request that was made
// meanwhile is answered on the listener that both had, and what was approved
// last is what is served.
func TestRestart(t *testing.T) {
	m := newManager(t, 100)
	s := m.start()
	m.register("api", "A")
	changed := manifestOf("api", "B")
	m.with(func(admin *client.Admin) error {
		_, err := admin.Reload(context.Background(), schema.ReloadRequest{Name: "api", Manifest: &changed})
		return err
	})
	until(t, func() bool { return slices.Equal(m.names(), []string{"project-api", "registration-api@2"}) })
	for round := range 5 {
		before := s.Status().InstanceID
		s.Shutdown(context.Background())
		waiting := connect(t, m.project("api")) // in the backlog: nobody accepts
		if _, err := io.WriteString(waiting, `{"op":"get","name":"B","wait_ms":20000}`+"\n"); err != nil {
			t.Fatal(err)
		}
		s = m.start()
		m.push(tripwire)
		if answer := waiting.answer(t); answer != `{"ok":true,"value":"`+tripwire+`"}` {
			t.Errorf("round %d: what waited was answered %q", round, answer)
		}
		status := s.Status()
		if status.InstanceID == before || status.DescriptorStore != schema.DescriptorsKept || len(status.Projects) != 1 {
			t.Errorf("round %d: %+v", round, status)
		}
		if answer := connect(t, m.project("api")).ask(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, "denied") {
			t.Errorf("round %d: the older manifest is served: %s", round, answer)
		}
	}
	if target, err := os.Readlink(m.dir + "/run/devcontainers/" + strings.Repeat("a", 52)); err != nil || target != "../projects/api" {
		t.Errorf("the dev container's link leads to %q, %v", target, err)
	}
	m.with(func(admin *client.Admin) error { return admin.Unregister(context.Background(), "api") })
	until(t, func() bool { return len(m.names()) == 0 })
	if entries, _ := os.ReadDir(m.dir + "/run/devcontainers"); len(entries) != 0 {
		t.Error("after unregister the dev container's link is still there")
	}
}

// TestStoreRefuses has a store with room for one project, for half of one, and
// for none: what does not fit is served all the same, status says so, and
// nothing is left there that a restart would make half a project of.
func TestStoreRefuses(t *testing.T) {
	for _, c := range []struct {
		max  int
		kept []string
	}{
		{4, []string{"project-one", "registration-one@1"}},
		{2, []string{}}, // no room to see that it fits
		{1, []string{}},
		{0, []string{}},
	} {
		m := newManager(t, c.max)
		s := m.start()
		m.register("one", "A")
		m.register("two", "A")
		// What was taken out is told and not answered.
		until(t, func() bool { return slices.Equal(m.names(), c.kept) })
		if state := s.Status().DescriptorStore; state != schema.DescriptorsRefused {
			t.Errorf("room for %d: the state is %s", c.max, state)
		}
		m.push(tripwire)
		for _, project := range []string{"one", "two"} {
			if answer := connect(t, m.project(project)).ask(t, `{"op":"get","name":"A"}`); !strings.Contains(answer, tripwire) {
				t.Errorf("room for %d: %s is not served: %s", c.max, project, answer)
			}
		}
		s.Shutdown(context.Background())
		if n := len(m.start().Status().Projects); n != len(c.kept)/2 {
			t.Errorf("room for %d: %d projects are back", c.max, n)
		}
	}
}

// TestInherited refuses what a service manager should not have passed, and makes
// do with leftovers.
func TestInherited(t *testing.T) {
	m := newManager(t, 100)
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
			t.Errorf("got %v, want %q", err, want)
		}
	}
	all := func() []*os.File { return m.pass() }
	refused("none is named admin", all()[1:]...)
	refused(`"other"`, append(all(), m.dup(int(m.admin.Fd()), "other"))...)
	refused(`"LISTEN_FD_9"`, append(all(), m.dup(int(m.admin.Fd()), "LISTEN_FD_9"))...)
	refused("two descriptors named admin", append(all(), m.dup(int(m.admin.Fd()), "admin"))...)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	refused("no listening socket", m.dup(int(null.Fd()), "admin"))

	// Leftovers of a crash: a registration without seals, a listener without a
	// registration, an older registration, a probe.
	unsealed, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(unsealed)
	m.take([]string{"FDSTORE=1", "FDNAME=registration-evil@1"}, []int{dupFD(t, unsealed)})
	m.take([]string{"FDSTORE=1", "FDNAME=project-evil"}, []int{dupFD(t, int(m.admin.Fd()))})
	m.take([]string{"FDSTORE=1", "FDNAME=probe"}, []int{dupFD(t, unsealed)})
	// And two registrations, of a daemon that was killed between putting the
	// next one there and removing the last: whichever comes first.
	for name, front := range map[string]bool{"front": true, "behind": false} {
		m.mu.Lock()
		i := slices.IndexFunc(m.store, func(s stored) bool { return strings.HasPrefix(s.name, "registration-api@") })
		last := stored{m.store[i].name, dupFD(t, m.store[i].fd)}
		m.mu.Unlock()
		s = m.start()
		changed := manifestOf("api", "A", strings.ToUpper(name))
		m.with(func(admin *client.Admin) error {
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
		if answer := connect(t, m.project("api")).ask(t, `{"op":"info"}`); !strings.Contains(answer, strings.ToUpper(name)) {
			t.Errorf("an older manifest came back: %s", answer)
		}
		s.Shutdown(context.Background())
	}
	s = m.start()
	if status := s.Status(); len(status.Projects) != 1 || status.Projects[0].Name != "api" {
		t.Errorf("%+v", status.Projects)
	}
	until(t, func() bool { return slices.Equal(m.names(), []string{"project-api", "registration-api@3"}) })
}

func dupFD(t *testing.T, fd int) int {
	t.Helper()
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return copied
}

func until(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never comes")
		}
	}
}

func (m *manager) declare(d manifest.Declaration) {
	m.t.Helper()
	text, err := d.Encode()
	if err != nil {
		m.t.Fatal(err)
	}
	m.file(string(d.Name)+".yaml", string(text))
}

func (m *manager) file(name, text string) {
	m.t.Helper()
	if err := os.MkdirAll(m.dir+"/projects.d", 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.dir+"/projects.d/"+name, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// TestDeclared serves declared projects at the start, after a stop that emptied
// the store too, takes changes when told, and is not disturbed by bad files.
func TestDeclared(t *testing.T) {
	m := newManager(t, 100)
	m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", AllowUIDs: []uint32{1000}, Manifest: manifestOf("api", "A")})
	m.declare(manifest.Declaration{Name: "web", Path: "/nowhere/web", Manifest: manifestOf("web", "A")})
	for name, text := range map[string]string{
		"empty.yaml": "", "broken.yaml": "path: [", "unknown.yaml": "path: /nowhere/unknown\nsurprise: 1\nmanifest: x\n",
		"other.yaml": "path: /nowhere/api\nmanifest: |\n  " + strings.ReplaceAll(manifestOf("api", "A"), "\n", "\n  "),
		"UPPER.yaml": "path: /nowhere/UPPER\n", "README": "not read",
		"bad.yaml": "path: /nowhere/bad\nmanifest: |\n  schema_version: 2\n",
	} {
		m.file(name, text)
	}
	s := m.start()
	names := func() string {
		var list []string
		for _, p := range s.Status().Projects {
			text := string(p.Name)
			if p.Declared {
				text += "!"
			}
			list = append(list, text)
		}
		return strings.Join(list, " ")
	}
	if got := names(); got != "api! web!" {
		t.Fatalf("served: %s", got)
	}
	m.register("run", "A")
	err := s.Declare()
	for _, want := range []string{"empty.yaml", "broken.yaml", "unknown.yaml: line 2: ", "other.yaml", "UPPER.yaml", "bad.yaml"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error says nothing of %s: %v", want, err)
		}
	}

	// A change, a file that breaks, one that goes, and one that comes.
	m.declare(manifest.Declaration{Name: "api", Path: "/nowhere/api", AllowUIDs: []uint32{1000}, Manifest: manifestOf("api", "B")})
	m.file("web.yaml", "broken")
	m.declare(manifest.Declaration{Name: "new", Path: "/nowhere/new", Manifest: manifestOf("new", "A")})
	s.Declare()
	if got := names(); got != "api! new! run web!" {
		t.Errorf("served: %s", got)
	}
	m.push(tripwire)
	for request, want := range map[string]string{"A": "denied", "B": tripwire} {
		if answer := connect(t, m.project("api")).ask(t, `{"op":"get","name":"`+request+`"}`); !strings.Contains(answer, want) {
			t.Errorf("%s: %s", request, answer)
		}
	}
	os.Remove(m.dir + "/projects.d/new.yaml")
	s.Declare()
	if got := names(); got != "api! run web!" {
		t.Errorf("served: %s", got)
	}

	// A restart keeps all, and a stop what is declared.
	s.Shutdown(context.Background())
	s = m.start()
	if got := names(); got != "api! run web!" {
		t.Errorf("served after a restart: %s", got)
	}
	s.Shutdown(context.Background())
	m.empty()
	m.declare(manifest.Declaration{Name: "web", Path: "/nowhere/web", Manifest: manifestOf("web", "A")})
	s = m.start()
	if got := names(); got != "api! web!" {
		t.Errorf("served after a stop: %s", got)
	}

	// Who could write the file or its directory would decide what is fetched.
	for _, path := range []string{"/projects.d/web.yaml", "/projects.d"} {
		if err := os.Chmod(m.dir+path, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := s.Declare(); err == nil || !strings.Contains(err.Error(), "others can write it") {
			t.Errorf("%s of mode 0777: %v", path, err)
		}
		if got := names(); got != "api! web!" {
			t.Errorf("served: %s", got)
		}
		if err := os.Chmod(m.dir+path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestProbe goes the way of a get, and notices when there is none.
func TestProbe(t *testing.T) {
	s := newServer(t)
	if err := s.Probe(context.Background()); err != nil {
		t.Error(err)
	}
	if text := s.log.String(); strings.Contains(text, "secrets.fetched") {
		t.Error("the probe is in the audit log")
	}
	unlock := s.HoldKeyring()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Probe(ctx); err == nil {
		t.Error("a broker whose keyring hangs is called well")
	}
	unlock()
	if err := s.Probe(context.Background()); err != nil {
		t.Error(err)
	}
}
