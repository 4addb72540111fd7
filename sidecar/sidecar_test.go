package sidecar

import (
	"bytes"
	"context"
	"fmt"
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
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

const tripwire = storetest.Tripwire

// A testHost has a store and a broker that can be stopped and started.
type testHost struct {
	t      testing.TB
	dir    string
	store  string
	server *broker.Server
	audits []*audit.Log // one for each broker that was started
}

func newTestHost(t testing.TB) *testHost {
	t.Helper()
	// The path must be short, because the path of a socket has at most 107 bytes.
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

// waitForNames waits until the broker has exactly the secrets with these names, which
// must be sorted.
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

// waitForGeneration waits until the broker's generation is at least n.
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
			h.t.Fatalf("timeout while waiting until %s", condition)
		}
	}
}

func (h *testHost) writeSecret(name, text string) {
	h.t.Helper()
	storetest.WriteFile(filepath.Join(h.store, name), text)
}

// pushLine returns the line for client.Admin.Push that pushes one secret.
func pushLine(name schema.SecretName, text string) []byte {
	line, err := wire.Encode(schema.PushRequest{Op: schema.OpPush, Secrets: map[schema.SecretName]schema.Value{name: {Text: text}}})
	if err != nil {
		panic(err)
	}
	return line
}

// A runningSidecar is a sidecar that runs until stop is called or the test ends.
type runningSidecar struct {
	log  *logBuffer
	stop func()
}

// runSidecar starts a sidecar with the host's store. config can change its
// configuration, and may be nil.
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

func (r runningSidecar) waitForLog(h *testHost, text string) {
	h.t.Helper()
	h.waitUntil("the sidecar logs "+text, func() bool { return strings.Contains(r.log.String(), text) })
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

// A switchableStore reads override, or good if override is nil.
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

func (s *switchableStore) Read(ctx context.Context) (store.Set, error) {
	s.mu.Lock()
	from := s.override
	s.mu.Unlock()
	if from == nil {
		from = s.good
	}
	return from.Read(ctx)
}

func (s *switchableStore) WatchDirs() []string      { return nil }
func (s *switchableStore) IsAffectedBy(string) bool { return true }

// TestEveryKindOfChangeIsPushed checks that the sidecar detects each kind of change with
// events alone and with polling alone.
func TestEveryKindOfChangeIsPushed(t *testing.T) {
	for name, config := range map[string]func(*Config){
		"events":  nil,
		"polling": func(c *Config) { c.Poll = 20 * time.Millisecond; c.ignoreEvents = true },
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHost(t)
			h.writeSecret("A", tripwire+"1")
			h.runSidecar(config)
			h.waitForNames("A")

			h.writeSecret("B", tripwire)
			h.waitForNames("A", "B")
			if err := os.Remove(h.store + "/A"); err != nil {
				t.Fatal(err)
			}
			h.waitForNames("B")
			before := h.status().Generation
			h.writeSecret("B", tripwire+"in place")
			h.waitForGeneration(before + 1)
			if err := (store.Dir{Path: h.store}).Set("B", []byte(tripwire+"by rename")); err != nil {
				t.Fatal(err)
			}
			h.waitForGeneration(before + 2)
			h.writeSecret("aws/key", tripwire)
			h.waitForNames("B", "aws")
			h.writeSecret("aws/secret", tripwire+"in a new directory")
			h.waitForGeneration(before + 4)
			// Replace the complete directory.
			other := h.dir + "/other"
			storetest.WriteFile(other+"/C", tripwire)
			if err := os.Rename(h.store, h.dir+"/old"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(other, h.store); err != nil {
				t.Fatal(err)
			}
			h.waitForNames("C")
			h.writeSecret("D", tripwire)
			h.waitForNames("C", "D")
			// An empty store is valid, and its set is pushed.
			os.Remove(h.store + "/C")
			os.Remove(h.store + "/D")
			h.waitForNames()
		})
	}
}

// TestReplacedDataLinkIsPushed replaces the link ..data, as Kubernetes does when it
// updates a secret volume.
func TestReplacedDataLinkIsPushed(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("..1/A", tripwire)
	h.writeSecret("..2/A", tripwire+"rotated")
	link := func(to, name string) {
		if err := os.Symlink(to, h.store+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	link("..1", "..data")
	link("..data/A", "A")
	h.runSidecar(nil)
	h.waitForNames("A")
	link("..2", "..tmp")
	if err := os.Rename(h.store+"/..tmp", h.store+"/..data"); err != nil {
		t.Fatal(err)
	}
	h.waitForGeneration(2)
}

// TestBadStoreKeepsPushedSet breaks the store in several ways. The broker keeps its
// secrets. The sidecar logs each error once, and logs that the store is readable again.
func TestBadStoreKeepsPushedSet(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	r := h.runSidecar(func(c *Config) { c.Poll = 10 * time.Millisecond })
	h.waitForNames("A")
	h.writeSecret("bad name", tripwire)
	r.waitForLog(h, "bad name")
	os.Rename(h.store, h.dir+"/away")
	r.waitForLog(h, "does not exist")
	h.waitForNames("A")
	os.Rename(h.dir+"/away", h.store)
	os.Remove(h.store + "/bad name")
	r.waitForLog(h, "the store is readable again")
	h.writeSecret("B", tripwire)
	h.waitForNames("A", "B")
	if h.status().Generation != 2 {
		t.Errorf("generation %d, want 2: the sidecar pushed while the store was bad", h.status().Generation)
	}
	// The error can be logged once before the directory is renamed, and once afterwards.
	if n := strings.Count(r.log.String(), "bad name"); n > 2 {
		t.Errorf("the bad name was logged %d times, want at most 2", n)
	}
}

// TestPushAfterBrokerRestart restarts the broker. The sidecar pushes again immediately,
// and a change of the store during the restart is not lost.
func TestPushAfterBrokerRestart(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	r := h.runSidecar(nil)
	h.waitForNames("A")
	for range 20 {
		h.server.Close()
		h.startBroker()
		h.waitForNames("A")
	}
	r.waitForLog(h, "ended the connection")
	h.server.Close()
	h.writeSecret("B", tripwire) // while no broker is running
	r.waitForLog(h, "cannot connect to the broker; retrying")
	h.startBroker()
	h.waitForNames("A", "B")
}

// TestClearedBrokerStaysEmptyUntilChange clears the broker as an operator does. The
// sidecar does not push again until the store changes.
func TestClearedBrokerStaysEmptyUntilChange(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	r := h.runSidecar(func(c *Config) { c.Poll = 5 * time.Millisecond })
	h.waitForNames("A")
	admin := h.dialAdmin()
	defer admin.Close()
	if err := admin.Clear(context.Background()); err != nil {
		t.Fatal(err)
	}
	// Wait for several polls. The log shows when the sidecar has read a bad store and
	// then the same good store again.
	h.writeSecret("bad name", tripwire)
	r.waitForLog(h, "bad name")
	os.Remove(h.store + "/bad name")
	r.waitForLog(h, "the store is readable again")
	h.waitForNames()
	h.writeSecret("B", tripwire)
	h.waitForNames("A", "B")
}

// TestTwoSidecarsWarn runs two sidecars for one broker. Both log a warning.
func TestTwoSidecarsWarn(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	first := h.runSidecar(func(c *Config) { c.Poll = 20 * time.Millisecond })
	h.waitForNames("A")
	storetest.WriteFile(h.dir+"/other/B", tripwire)
	second := h.runSidecar(func(c *Config) { c.Poll = 30 * time.Millisecond; c.Store = store.Dir{Path: h.dir + "/other"} })
	first.waitForLog(h, "another client, possibly a second sidecar, has pushed to this broker")
	second.waitForLog(h, "another client, possibly a second sidecar, has pushed to this broker")
}

// TestForeignPushIsReplaced pushes another set to the broker. The sidecar pushes the
// set of the store again.
func TestForeignPushIsReplaced(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	r := h.runSidecar(func(c *Config) { c.Poll = 20 * time.Millisecond })
	h.waitForNames("A")
	admin := h.dialAdmin()
	defer admin.Close()
	if _, err := admin.Push(context.Background(), pushLine("X", tripwire)); err != nil {
		t.Fatal(err)
	}
	r.waitForLog(h, "another client, possibly a second sidecar, has pushed to this broker")
	h.waitForNames("A")
}

func TestClearOnExit(t *testing.T) {
	for _, clear := range []bool{false, true} {
		h := newTestHost(t)
		h.writeSecret("A", tripwire)
		r := h.runSidecar(func(c *Config) { c.ClearOnExit = clear })
		h.waitForNames("A")
		r.stop()
		if got := h.status().SecretCount; (got == 0) != clear {
			t.Errorf("ClearOnExit %v: the broker has %d secrets after the sidecar has ended", clear, got)
		}
	}
}

// TestUnchangedStoreIsNotPushed writes the same values into the files again. The sidecar
// does not push.
func TestUnchangedStoreIsNotPushed(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	h.runSidecar(nil)
	h.waitForNames("A")
	for range 5 {
		h.writeSecret("A", tripwire)
	}
	h.writeSecret("B", tripwire)
	h.waitForNames("A", "B")
	if g := h.status().Generation; g != 2 {
		t.Errorf("generation %d, want 2", g)
	}
}

// TestOtherProtocolVersionIsRefused connects the sidecar to a broker with another
// protocol version.
func TestOtherProtocolVersionIsRefused(t *testing.T) {
	h := newTestHost(t)
	h.server.Close()
	if err := os.Remove(h.server.AdminSocket()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", h.server.AdminSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends when the listener is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, `{"ok":true,"broker_version":"9.9","protocol_version":3}`+"\n")
			defer c.Close()
		}
	}()
	h.writeSecret("A", tripwire)
	r := h.runSidecar(nil)
	r.waitForLog(h, "the broker uses protocol version 3, but this sidecar uses version 2: install the keyhatch-sidecar of broker version 9.9")
}

// TestServiceManagerIsNotified acts as the service manager. The sidecar reports that it
// is ready, a status with counts, the watchdog notifications, and that it is stopping.
func TestServiceManagerIsNotified(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	notifySocket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: h.dir + "/notify", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notifySocket.Close()
	t.Setenv("NOTIFY_SOCKET", h.dir+"/notify")
	t.Setenv("WATCHDOG_USEC", "20000")
	r := h.runSidecar(nil)
	waitForMessage := func(want string) {
		t.Helper()
		notifySocket.SetReadDeadline(time.Now().Add(10 * time.Second))
		for b := make([]byte, 4096); ; {
			n, err := notifySocket.Read(b)
			if err != nil {
				t.Fatalf("the service manager did not receive %q: %v", want, err)
			}
			if strings.Contains(string(b[:n]), tripwire) {
				t.Fatal("the service manager received a secret")
			}
			if string(b[:n]) == want {
				return
			}
		}
	}
	waitForMessage("READY=1\nSTATUS=1 secret pushed, generation 1")
	waitForMessage("WATCHDOG=1")
	h.writeSecret("bad name", tripwire)
	waitForMessage("READY=1\nSTATUS=cannot read the store; the broker keeps the previous secrets")
	waitForMessage("WATCHDOG=1")
	r.stop()
	waitForMessage("STOPPING=1")
}

// TestCheckHealth checks that CheckHealth succeeds if the broker has the secrets of the
// store, and that it returns the reason if it fails.
func TestCheckHealth(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	health := func() string {
		_, err := CheckHealth(context.Background(), store.Dir{Path: h.store}, h.dir+"/run/admin/admin.sock")
		return fmt.Sprint(err)
	}
	if got := health(); !strings.Contains(got, "the broker has no secrets") {
		t.Errorf("before a push: %s", got)
	}
	r := h.runSidecar(nil)
	h.waitForNames("A")
	if got := health(); got != "<nil>" {
		t.Errorf("after a push: %s", got)
	}
	r.stop()
	h.writeSecret("B", tripwire)
	if got := health(); !strings.Contains(got, "in the store: 2, in the broker: 1, in the store but not in the broker: 1") {
		t.Errorf("with a secret that was not pushed: %s", got)
	}
	h.writeSecret("bad name", tripwire)
	if got := health(); !strings.Contains(got, "bad name") || !strings.Contains(got, schema.SecretNamePattern) {
		t.Errorf("with a bad store: %s", got)
	}
	os.Remove(h.store + "/bad name")
	h.server.Close()
	if got := health(); !strings.Contains(got, "cannot reach the broker at "+h.dir) {
		t.Errorf("without a broker: %s", got)
	}
}
