package broker_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// A serviceManager replaces systemd in tests. It implements only the part that handles
// file descriptors (sd_notify(3)). It has the admin listener and a store of at most max
// file descriptors. It closes the file descriptors that do not fit into the store.
type serviceManager struct {
	t      *testing.T
	dir    string
	socket *net.UnixConn
	admin  *os.File
	ended  chan struct{}
	log    lockedBuffer // the logs and audit events of all brokers that use config

	mu      sync.Mutex
	max     int
	store   []storedDescriptor
	ignored string               // handleMessage ignores requests to remove the file descriptor with this name
	record  bool                 // whether handleMessage appends the content of the store to states
	states  [][]storedDescriptor // earlier contents of the store
	checks  int                  // number of BARRIER=1 messages
	synced  chan struct{}        // see sync
	delay   chan struct{}        // handleMessage waits until delay is closed before it stores a listener; nil for no delay
}

type storedDescriptor struct {
	name string
	fd   int
}

func newServiceManager(t *testing.T, max int) *serviceManager {
	t.Helper()
	return newServiceManagerOn(t, max, func(string) {})
}

// newServiceManagerOn returns a serviceManager. It creates the runtime directory and calls prepare,
// before it creates the admin socket in this directory. prepare can, for example, mount a file
// system on the directory.
func newServiceManagerOn(t *testing.T, max int, prepare func(runtimeDir string)) *serviceManager {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	m := &serviceManager{t: t, dir: dir, max: max, ended: make(chan struct{}), synced: make(chan struct{})}
	if m.socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/notify", Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/run", 0o755); err != nil {
		t.Fatal(err)
	}
	prepare(dir + "/run")
	if err := os.Mkdir(dir+"/run/admin", 0o750); err != nil {
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
	go m.serve() // ends when the cleanup function below closes the socket
	t.Cleanup(func() {
		m.socket.Close()
		<-m.ended
		m.admin.Close()
		m.dropStore()
		os.RemoveAll(dir)
	})
	return m
}

func (m *serviceManager) adminSocket() string { return m.dir + "/run/admin/admin.sock" }

func (m *serviceManager) projectSocket(name string) string {
	return filepath.Join(m.dir, "run/projects", name, "broker.sock")
}

func (m *serviceManager) serve() {
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
		m.handleMessage(strings.Split(string(buffer[:n]), "\n"), fds)
	}
}

func (m *serviceManager) handleMessage(lines []string, fds []int) {
	name := ""
	for _, line := range lines {
		if text, ok := strings.CutPrefix(line, "FDNAME="); ok {
			name = text
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if delay := m.delay; delay != nil && strings.HasPrefix(name, "project-") {
		m.mu.Unlock()
		<-delay
		m.mu.Lock()
	}
	if slices.Contains(lines, "BARRIER=1") {
		m.checks++
	}
	if slices.Contains(lines, "SYNC") {
		m.synced <- struct{}{}
	}
	if slices.Contains(lines, "FDSTOREREMOVE=1") && name != m.ignored {
		m.store = slices.DeleteFunc(m.store, func(s storedDescriptor) bool {
			if s.name == name {
				unix.Close(s.fd)
			}
			return s.name == name
		})
	}
	for _, fd := range fds {
		if slices.Contains(lines, "FDSTORE=1") && len(m.store) < m.max {
			m.store = append(m.store, storedDescriptor{name, fd})
		} else {
			unix.Close(fd) // the store is full, or the message is BARRIER=1
		}
	}
	if m.record {
		m.states = append(m.states, m.copyStore(m.store))
	}
}

// sync waits until the service manager has handled all messages that were sent before.
func (m *serviceManager) sync() {
	m.t.Helper()
	conn, err := net.Dial("unixgram", m.dir+"/notify")
	if err == nil {
		_, err = conn.Write([]byte("SYNC"))
	}
	if err != nil {
		m.t.Fatal(err)
	}
	<-m.synced
	conn.Close()
}

func (m *serviceManager) copyStore(store []storedDescriptor) (copied []storedDescriptor) {
	for _, s := range store {
		copied = append(copied, storedDescriptor{s.name, dupFD(m.t, s.fd)})
	}
	return copied
}

// dropStore closes all stored file descriptors. systemd does the same when it stops the
// service.
func (m *serviceManager) dropStore() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.store {
		unix.Close(s.fd)
	}
	m.store = nil
}

func (m *serviceManager) storedNames() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := []string{}
	for _, s := range m.store {
		names = append(names, s.name)
	}
	slices.Sort(names)
	return names
}

// inheritedFiles returns copies of the file descriptors that the broker inherits at its
// start, with their names.
func (m *serviceManager) inheritedFiles() []*os.File {
	m.mu.Lock()
	defer m.mu.Unlock()
	files := []*os.File{m.dup(int(m.admin.Fd()), "admin")}
	for _, s := range m.store {
		files = append(files, m.dup(s.fd, s.name))
	}
	return files
}

func (m *serviceManager) dup(fd int, name string) *os.File {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	return os.NewFile(uintptr(copied), name)
}

func (m *serviceManager) config() broker.Config {
	log := slog.New(slog.NewTextHandler(&m.log, nil))
	events, err := audit.Open(audit.Config{Out: &m.log, Log: log})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(events.Close)
	return broker.Config{
		RuntimeDir: m.dir + "/run", AdminGID: -1, Audit: events, Log: log, Version: "test",
		ProjectsDir: m.dir + "/projects.d", Inherited: m.inheritedFiles(), NotifySocket: m.dir + "/notify",
	}
}

func (m *serviceManager) start() *broker.Server {
	m.t.Helper()
	s, err := broker.New(m.config())
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(s.Close)
	s.WaitUntilStored()
	return s
}

// withAdmin calls use with a client that is connected to the admin socket.
func (m *serviceManager) withAdmin(use func(*client.Admin) error) {
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

func (m *serviceManager) register(project string, names ...string) {
	m.t.Helper()
	text := manifestText(project, names...)
	m.withAdmin(func(admin *client.Admin) error {
		_, err := admin.Register(context.Background(), schema.RegisterRequest{
			Name: schema.ProjectName(project), ProjectPath: "/nowhere/" + project, Manifest: &text,
			DevcontainerIDs: []schema.DevcontainerID{devcontainerIDOf(project)},
		})
		return err
	})
}

// devcontainerIDOf returns the dev container ID with which serviceManager.register registers
// a project.
func devcontainerIDOf(project string) schema.DevcontainerID {
	return schema.DevcontainerID(fmt.Sprintf("%x", sha256.Sum256([]byte(project)))[:52])
}

func (m *serviceManager) push(value string) {
	m.t.Helper()
	m.withAdmin(func(admin *client.Admin) error {
		_, err := admin.Push(context.Background(), pushLine(schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{"A": {Text: value}, "B": {Text: value}}}))
		return err
	})
}

func dupFD(t *testing.T, fd int) int {
	t.Helper()
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return copied
}
