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
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

const tripwire = storetest.Tripwire

// A host is a broker that can be stopped and started, and a store.
type host struct {
	t      testing.TB
	dir    string
	store  string
	server *broker.Server
	audits []*broker.Audit // of every server that was started
}

func newHost(t testing.TB) *host {
	t.Helper()
	// Short, because a socket's path has room for 107 bytes.
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: dir, store: filepath.Join(dir, "store")}
	if err := os.Mkdir(h.store, 0o700); err != nil {
		t.Fatal(err)
	}
	h.start()
	t.Cleanup(func() {
		h.server.Close()
		for _, audit := range h.audits {
			audit.Close()
		}
		os.RemoveAll(dir)
	})
	return h
}

func (h *host) start() {
	h.t.Helper()
	log := slog.New(slog.DiscardHandler)
	audit, err := broker.OpenAudit("", io.Discard, false, log)
	if err != nil {
		h.t.Fatal(err)
	}
	h.server, err = broker.New(broker.Config{RuntimeDir: h.dir + "/run", AdminGID: -1, Audit: audit, Log: log, Version: "test"})
	if err != nil {
		h.t.Fatal(err)
	}
	h.audits = append(h.audits, audit)
}

func (h *host) admin() *client.Admin {
	h.t.Helper()
	admin, err := client.DialAdmin(context.Background(), h.server.AdminSocket())
	if err != nil {
		h.t.Fatal(err)
	}
	return admin
}

// has waits until the broker holds exactly these names.
func (h *host) has(names ...schema.SecretName) {
	h.t.Helper()
	var got []schema.SecretName
	h.until(fmt.Sprint("the broker holds ", names), func() bool {
		admin := h.admin()
		defer admin.Close()
		got, _ = admin.List(context.Background())
		return slices.Equal(got, names)
	})
}

// generation waits until the broker's generation is at least n.
func (h *host) generation(n uint64) {
	h.t.Helper()
	h.until(fmt.Sprint("generation ", n), func() bool { return h.status().Generation >= n })
}

func (h *host) status() schema.StatusResponse {
	h.t.Helper()
	admin := h.admin()
	defer admin.Close()
	status, err := admin.Status(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return status
}

func (h *host) until(what string, ok func() bool) {
	h.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(15 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			h.t.Fatalf("never came true: %s", what)
		}
	}
}

func (h *host) write(name, text string) {
	h.t.Helper()
	storetest.WriteFile(filepath.Join(h.store, name), text)
}

// pushLine encodes a push of one secret for client.Admin.Push.
func pushLine(name schema.SecretName, text string) []byte {
	line, err := wire.Encode(schema.PushRequest{Op: schema.OpPush, Secrets: map[schema.SecretName]schema.Value{name: {Text: text}}})
	if err != nil {
		panic(err)
	}
	return line
}

// A running sidecar.
type running struct {
	log  *logged
	stop func()
}

// run starts a sidecar on the host's store; config may change what it does.
func (h *host) run(config func(*Config)) running {
	h.t.Helper()
	log := &logged{}
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
			h.t.Error("the sidecar logged a secret's content")
		}
	})
	h.t.Cleanup(stop)
	return running{log, stop}
}

func (r running) says(h *host, text string) {
	h.t.Helper()
	h.until("the sidecar says "+text, func() bool { return strings.Contains(r.log.String(), text) })
}

type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// turns is a store that takes the place of another, and gives it back.
type turns struct {
	good store.Store
	mu   sync.Mutex
	now  store.Store
}

func (u *turns) set(now store.Store) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.now = now
}

func (u *turns) Read(ctx context.Context) (store.Set, error) {
	u.mu.Lock()
	from := u.now
	u.mu.Unlock()
	if from == nil {
		from = u.good
	}
	return from.Read(ctx)
}

func (u *turns) WatchDirs() []string      { return nil }
func (u *turns) IsAffectedBy(string) bool { return true }

// TestEveryKindOfChange arrives, found by events alone and by polling alone.
func TestEveryKindOfChange(t *testing.T) {
	for name, config := range map[string]func(*Config){
		"events":  nil,
		"polling": func(c *Config) { c.Poll = 20 * time.Millisecond; c.noEvents = true },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.write("A", tripwire+"1")
			h.run(config)
			h.has("A")

			h.write("B", tripwire)
			h.has("A", "B")
			if err := os.Remove(h.store + "/A"); err != nil {
				t.Fatal(err)
			}
			h.has("B")
			before := h.status().Generation
			h.write("B", tripwire+"in place")
			h.generation(before + 1)
			if err := (store.Dir{Path: h.store}).Set("B", []byte(tripwire+"by rename")); err != nil {
				t.Fatal(err)
			}
			h.generation(before + 2)
			h.write("aws/key", tripwire)
			h.has("B", "aws")
			h.write("aws/secret", tripwire+"in a directory that is new")
			h.generation(before + 4)
			// The whole directory is replaced by another.
			other := h.dir + "/other"
			storetest.WriteFile(other+"/C", tripwire)
			if err := os.Rename(h.store, h.dir+"/old"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(other, h.store); err != nil {
				t.Fatal(err)
			}
			h.has("C")
			h.write("D", tripwire)
			h.has("C", "D")
			// Healthy and empty is a set too.
			os.Remove(h.store + "/C")
			os.Remove(h.store + "/D")
			h.has()
		})
	}
}

// TestLinkSwap swaps Kubernetes' ..data link.
func TestLinkSwap(t *testing.T) {
	h := newHost(t)
	h.write("..1/A", tripwire)
	h.write("..2/A", tripwire+"rotated")
	link := func(to, name string) {
		if err := os.Symlink(to, h.store+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	link("..1", "..data")
	link("..data/A", "A")
	h.run(nil)
	h.has("A")
	link("..2", "..tmp")
	if err := os.Rename(h.store+"/..tmp", h.store+"/..data"); err != nil {
		t.Fatal(err)
	}
	h.generation(2)
}

// TestLastGoodSet breaks the store in several ways: the broker keeps what it
// has, and each is said once, and that it is well again.
func TestLastGoodSet(t *testing.T) {
	h := newHost(t)
	h.write("A", tripwire)
	r := h.run(func(c *Config) { c.Poll = 10 * time.Millisecond })
	h.has("A")
	h.write("bad name", tripwire)
	r.says(h, "bad name")
	os.Rename(h.store, h.dir+"/away")
	r.says(h, "no such file")
	h.has("A")
	os.Rename(h.dir+"/away", h.store)
	os.Remove(h.store + "/bad name")
	r.says(h, "well again")
	h.write("B", tripwire)
	h.has("A", "B")
	if h.status().Generation != 2 {
		t.Errorf("generation %d: something was pushed in between", h.status().Generation)
	}
	if n := strings.Count(r.log.String(), "bad name"); n > 2 { // once before it was away, once after
		t.Errorf("it was said %d times", n)
	}
}

// TestBrokerComesBack restarts the broker: the set is pushed again at once, and
// a connection that ended for no reason costs no push.
func TestBrokerComesBack(t *testing.T) {
	h := newHost(t)
	h.write("A", tripwire)
	r := h.run(nil)
	h.has("A")
	for range 20 {
		h.server.Close()
		h.start()
		h.has("A")
	}
	r.says(h, "ended the connection")
	h.server.Close()
	h.write("B", tripwire) // changes while there is no broker
	r.says(h, "no broker to push to yet")
	h.start()
	h.has("A", "B")
}

// TestClearHolds until the store changes.
func TestClearHolds(t *testing.T) {
	h := newHost(t)
	h.write("A", tripwire)
	r := h.run(func(c *Config) { c.Poll = 5 * time.Millisecond })
	h.has("A")
	admin := h.admin()
	defer admin.Close()
	if err := admin.Clear(context.Background()); err != nil {
		t.Fatal(err)
	}
	// Many polls later there is still nothing: bad news is a state to wait for.
	h.write("bad name", tripwire)
	r.says(h, "bad name")
	os.Remove(h.store + "/bad name")
	r.says(h, "well again")
	h.has()
	h.write("B", tripwire)
	h.has("A", "B")
}

// TestTwoSidecars see each other, and each says so.
func TestTwoSidecars(t *testing.T) {
	h := newHost(t)
	h.write("A", tripwire)
	one := h.run(func(c *Config) { c.Poll = 20 * time.Millisecond })
	h.has("A")
	storetest.WriteFile(h.dir+"/other/B", tripwire)
	two := h.run(func(c *Config) { c.Poll = 30 * time.Millisecond; c.Store = store.Dir{Path: h.dir + "/other"} })
	one.says(h, "something else pushes to this broker")
	two.says(h, "something else pushes to this broker")
}

// TestPushedByHand puts another set into the broker: the store's comes back.
func TestPushedByHand(t *testing.T) {
	h := newHost(t)
	h.write("A", tripwire)
	r := h.run(func(c *Config) { c.Poll = 20 * time.Millisecond })
	h.has("A")
	admin := h.admin()
	defer admin.Close()
	if _, err := admin.Push(context.Background(), pushLine("X", tripwire)); err != nil {
		t.Fatal(err)
	}
	r.says(h, "something else pushes to this broker")
	h.has("A")
}

func TestOnExit(t *testing.T) {
	for _, clear := range []bool{false, true} {
		h := newHost(t)
		h.write("A", tripwire)
		r := h.run(func(c *Config) { c.ClearOnExit = clear })
		h.has("A")
		r.stop()
		if got := h.status().SecretCount; (got == 0) != clear {
			t.Errorf("clear %v: %d secrets after the end", clear, got)
		}
	}
}

// TestOnlyWhatDiffers touches files without changing them: nothing is pushed.
func TestOnlyWhatDiffers(t *testing.T) {
	h := newHost(t)
	h.write("A", tripwire)
	h.run(nil)
	h.has("A")
	for range 5 {
		h.write("A", tripwire)
	}
	h.write("B", tripwire)
	h.has("A", "B")
	if g := h.status().Generation; g != 2 {
		t.Errorf("generation %d, want 2", g)
	}
}

// TestSkewIsRefused has a broker of another protocol answer.
func TestSkewIsRefused(t *testing.T) {
	h := newHost(t)
	h.server.Close()
	l, err := net.Listen("unix", h.server.AdminSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ended by the listener's end
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, `{"ok":true,"broker_version":"9.9","protocol_version":3}`+"\n")
			defer c.Close()
		}
	}()
	h.write("A", tripwire)
	r := h.run(nil)
	r.says(h, "the broker speaks protocol 3, and this sidecar 2: install the one that came with broker 9.9")
}

// TestNotify plays the service manager: ready and a status in counts, the
// watchdog fed, and stopping.
func TestNotify(t *testing.T) {
	h := newHost(t)
	h.write("A", tripwire)
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: h.dir + "/notify", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", h.dir+"/notify")
	t.Setenv("WATCHDOG_USEC", "20000")
	r := h.run(nil)
	hears := func(want string) {
		t.Helper()
		manager.SetReadDeadline(time.Now().Add(10 * time.Second))
		for b := make([]byte, 4096); ; {
			n, err := manager.Read(b)
			if err != nil {
				t.Fatalf("the service manager never hears %q: %v", want, err)
			}
			if strings.Contains(string(b[:n]), tripwire) {
				t.Fatal("the service manager hears a secret")
			}
			if string(b[:n]) == want {
				return
			}
		}
	}
	hears("READY=1\nSTATUS=1 secrets pushed, generation 1")
	hears("WATCHDOG=1")
	h.write("bad name", tripwire)
	hears("READY=1\nSTATUS=the store cannot be used; the last good set is in force")
	hears("WATCHDOG=1")
	r.stop()
	hears("STOPPING=1")
}

// TestHealth is good when the broker holds what the store has, and says why it
// is not.
func TestHealth(t *testing.T) {
	h := newHost(t)
	h.write("A", tripwire)
	health := func() string {
		_, err := Health(context.Background(), store.Dir{Path: h.store}, h.dir+"/run/admin/admin.sock")
		return fmt.Sprint(err)
	}
	if got := health(); !strings.Contains(got, "the broker holds nothing") {
		t.Errorf("before a push: %s", got)
	}
	r := h.run(nil)
	h.has("A")
	if got := health(); got != "<nil>" {
		t.Errorf("all is well: %s", got)
	}
	r.stop()
	h.write("B", tripwire)
	if got := health(); !strings.Contains(got, "1 of the store's are missing") {
		t.Errorf("a secret that was not pushed: %s", got)
	}
	h.write("bad name", tripwire)
	if got := health(); !strings.Contains(got, "does not match") {
		t.Errorf("a bad store: %s", got)
	}
	os.Remove(h.store + "/bad name")
	h.server.Close()
	if got := health(); !strings.Contains(got, "cannot be reached") {
		t.Errorf("no broker: %s", got)
	}
}
