package sidecar

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/broker/rundir"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

const tripwire = storetest.Tripwire

// A testHost is a host for tests. It has a store, and a broker that a test can stop and
// start.
type testHost struct {
	t      testing.TB
	dir    string
	store  string
	server *broker.Server
	audits []*audit.Log // one audit log for each broker that was started
}

func newTestHost(t testing.TB) *testHost {
	t.Helper()
	// The path of dir must be short, because the path of a socket can have at most 107
	// bytes.
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	h := &testHost{t: t, dir: dir, store: filepath.Join(dir, "store")}
	if err := os.Mkdir(h.store, 0o700); err != nil {
		t.Fatal(err)
	}
	h.startBroker()
	t.Cleanup(func() {
		h.server.Close()
		for _, audit := range h.audits {
			audit.Close()
		}
		os.RemoveAll(dir)
	})
	return h
}

func (h *testHost) startBroker() {
	h.t.Helper()
	log := slog.New(slog.DiscardHandler)
	audit, err := audit.Open(audit.Config{Out: io.Discard, Log: log})
	if err != nil {
		h.t.Fatal(err)
	}
	h.server, err = broker.New(broker.Config{RuntimeDir: h.dir + "/run", AdminGID: -1, Audit: audit, Log: log, Version: "test"})
	if err != nil {
		h.t.Fatal(err)
	}
	h.audits = append(h.audits, audit)
}

func (h *testHost) dialAdmin() *client.Admin {
	h.t.Helper()
	admin, err := client.DialAdmin(context.Background(), h.server.AdminSocket())
	if err != nil {
		h.t.Fatal(err)
	}
	return admin
}

// waitForNames waits until the secrets in the broker have exactly these names. The names must
// be sorted.
func (h *testHost) waitForNames(names ...schema.SecretName) {
	h.t.Helper()
	var got []schema.SecretName
	h.waitUntil(fmt.Sprint("the broker has the secrets ", names), func() bool {
		admin := h.dialAdmin()
		defer admin.Close()
		got, _ = admin.List(context.Background())
		return slices.Equal(got, names)
	})
}

// waitForGeneration waits until the generation number of the broker's secrets is at least
// n.
func (h *testHost) waitForGeneration(n uint64) {
	h.t.Helper()
	h.waitUntil(fmt.Sprint("the generation is at least ", n), func() bool { return h.status().Generation >= n })
}

func (h *testHost) status() schema.StatusResponse {
	h.t.Helper()
	admin := h.dialAdmin()
	defer admin.Close()
	status, err := admin.Status(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return status
}

func (h *testHost) waitUntil(condition string, ok func() bool) {
	h.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(15 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			h.t.Fatalf("timed out after 15 seconds; the test waited until %s", condition)
		}
	}
}

func (h *testHost) writeSecret(name, text string) {
	h.t.Helper()
	storetest.WriteFile(filepath.Join(h.store, name), text)
}

// replaceDataLink writes a secret in the way in which Kubernetes updates a secret volume. It
// writes the file into a new directory and then replaces the link ..data.
func (h *testHost) replaceDataLink(name, text string) {
	h.t.Helper()
	version := fmt.Sprintf("..v%d", time.Now().UnixNano())
	h.writeSecret(version+"/"+name, text)
	os.Symlink("..data/"+name, filepath.Join(h.store, name)) // fails if the link exists
	next := filepath.Join(h.store, "..next")
	err := os.Symlink(version, next)
	if err == nil {
		old, _ := os.Readlink(filepath.Join(h.store, "..data"))
		if err = os.Rename(next, filepath.Join(h.store, "..data")); err == nil && old != "" {
			err = os.RemoveAll(filepath.Join(h.store, old))
		}
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// pushLine returns a request line for client.Admin.Push. The request pushes one secret.
func pushLine(name schema.SecretName, text string) []byte {
	line, err := wire.Encode(schema.PushRequest{Op: schema.OpPush, Secrets: map[schema.SecretName]schema.Value{name: {Text: text}}})
	if err != nil {
		panic(err)
	}
	return line
}

// A runningSidecar is a sidecar that runs until the test calls stop, or until the test
// ends.
type runningSidecar struct {
	log  *logBuffer
	stop func()
}

// runSidecar starts a sidecar that reads the host's store. If config is not nil, config
// can change the configuration of the sidecar.
func (h *testHost) runSidecar(config func(*Config)) runningSidecar {
	h.t.Helper()
	log := &logBuffer{}
	c := Config{
		Store: store.Dir{Path: h.store}, Socket: h.server.AdminSocket(), Poll: time.Hour,
		Log: slog.New(slog.NewTextHandler(log, nil)),
	}
	if config != nil {
		config(&c)
	}
	if c.Read == nil {
		c.Read = readInProcess(c.Store)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
		if strings.Contains(log.String(), tripwire) {
			h.t.Error("the sidecar logged the content of a secret")
		}
	})
	h.t.Cleanup(stop)
	return runningSidecar{log, stop}
}

// readInProcess returns a function that reads a store without a child process, so that a test
// can control the store.
func readInProcess(source store.Store) ReadFunc {
	return func(ctx context.Context, previous store.LockedReading) (store.LockedReading, error) {
		var input bytes.Buffer
		if err := previous.Write(&input); err != nil {
			return store.LockedReading{}, err
		}
		reader, writer := io.Pipe()
		go func() { writer.CloseWithError(store.WriteResult(ctx, source, &input, writer)) }() // ReadResult waits for the end of this goroutine
		return store.ReadResult(reader)
	}
}

// readDirCommand is the first argument of a child process that reads a directory.
const readDirCommand = "read-dir"

// TestMain runs the tests. In the child process of readInChild, it reads a directory instead.
func TestMain(m *testing.M) {
	if rundir.IsChild() {
		rundir.RunChild()
		return
	}
	if len(os.Args) == 3 && os.Args[1] == readDirCommand {
		if err := store.WriteResult(context.Background(), store.Dir{Path: os.Args[2]}, os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// readInChild returns a function that reads a directory in a child process, as the command run
// of keyhatch-sidecar does.
func readInChild(dir string) ReadFunc {
	return (&store.ChildReader{Args: []string{readDirCommand, dir}, Timeout: store.Merged{store.Dir{}}.MaxReadTime()}).Read
}

func (r runningSidecar) waitForLog(h *testHost, text string) {
	h.t.Helper()
	h.waitUntil("the sidecar logs "+text, func() bool { return strings.Contains(r.log.String(), text) })
}

// hideStore renames the directory of a store until the sidecar has logged an error. When
// hideStore returns, the sidecar has read the store again.
func (r runningSidecar) hideStore(h *testHost, dir string) {
	h.t.Helper()
	if err := os.Rename(dir, dir+".hidden"); err != nil {
		h.t.Fatal(err)
	}
	r.waitForLog(h, "does not exist")
	if err := os.Rename(dir+".hidden", dir); err != nil {
		h.t.Fatal(err)
	}
	r.waitForLog(h, "the store is readable again")
}

// serviceManager contains the messages that the sidecars of this process send to the service
// manager.
type serviceManager struct {
	h        *testHost
	messages chan string
}

// listenForStatuses creates the socket of a service manager. The sidecars of the test use this socket.
func (h *testHost) listenForStatuses() serviceManager {
	h.t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: h.dir + "/notify", Net: "unixgram"})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Setenv("NOTIFY_SOCKET", h.dir+"/notify")
	m := serviceManager{h, make(chan string, 10000)}
	var reading sync.WaitGroup
	reading.Go(func() { // closing conn ends this goroutine; a sidecar blocks if nobody reads
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			select {
			case m.messages <- string(b[:n]):
			default:
			}
		}
	})
	h.t.Cleanup(func() { conn.Close(); reading.Wait() })
	return m
}

// waitFor waits until the service manager has received this message.
func (m serviceManager) waitFor(want string) {
	m.h.t.Helper()
	for timeout := time.After(15 * time.Second); ; {
		select {
		case message := <-m.messages:
			if strings.Contains(message, tripwire) {
				m.h.t.Fatal("the service manager received a secret")
			}
			if message == want {
				return
			}
		case <-timeout:
			m.h.t.Fatalf("the service manager did not receive %q", want)
		}
	}
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A switchableStore is a store that a test can replace while a sidecar runs. Read reads the
// store override, or the store good if override is nil.
type switchableStore struct {
	good     store.Store
	mu       sync.Mutex
	override store.Store
}

func (s *switchableStore) set(override store.Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.override = override
}

func (s *switchableStore) Read(ctx context.Context, previous *store.Reading) (*store.Reading, error) {
	s.mu.Lock()
	from := s.override
	s.mu.Unlock()
	if from == nil {
		from = s.good
	}
	return from.Read(ctx, previous)
}

func (s *switchableStore) WatchDirs() []string      { return nil }
func (s *switchableStore) IsAffectedBy(string) bool { return true }

const inNamespacesEnv = "KEYHATCH_TEST_IN_NAMESPACES"

// runInNamespaces runs the current test again in a child process with new namespaces. In the
// child process, runInNamespaces returns true.
func runInNamespaces(t *testing.T, cloneFlags uintptr) (isChild bool) {
	t.Helper()
	if os.Getenv(inNamespacesEnv) != "" {
		return true
	}
	t.Setenv(inNamespacesEnv, "1")
	runTestInNamespaces(t, t.Name(), cloneFlags)
	return false
}

// runTestInNamespaces runs a test in a child process. cloneFlags selects the new namespaces, and
// must contain CLONE_NEWUSER.
func runTestInNamespaces(t *testing.T, name string, cloneFlags uintptr) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  cloneFlags,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		testenv.Require(t, false, "cannot create a user namespace: "+err.Error())
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "--- PASS: "+name) {
		t.Errorf("%v\n%s", err, out.String())
	}
}
