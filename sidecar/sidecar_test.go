package sidecar

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
	"golang.org/x/sys/unix"
)

// TestEveryKindOfChangeIsPushed checks that the sidecar detects and pushes new, changed, renamed,
// and removed files and directories. One subtest uses only file events, and another subtest uses
// only polling.
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
			if err := (store.Dir{Path: h.store}).Set(t.Context(), "B", []byte(tripwire+"by rename")); err != nil {
				t.Fatal(err)
			}
			h.waitForGeneration(before + 2)
			h.writeSecret("aws/key", tripwire)
			h.waitForNames("B", "aws")
			h.writeSecret("aws/secret", tripwire+"in a new directory")
			h.waitForGeneration(before + 4)
			// Replace the directory of the store with another directory.
			other := h.dir + "/other"
			for _, name := range []string{"B", "C", "aws/key"} {
				storetest.WriteFile(other+"/"+name, tripwire)
			}
			if err := os.Rename(h.store, h.dir+"/old"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(other, h.store); err != nil {
				t.Fatal(err)
			}
			h.waitForNames("B", "C", "aws")
			os.Remove(h.store + "/B")
			os.RemoveAll(h.store + "/aws")
			h.waitForNames("C")
			h.writeSecret("D", tripwire)
			h.waitForNames("C", "D")
			// Remove all secrets. An empty store is valid, so the sidecar pushes an empty
			// set.
			os.Remove(h.store + "/C")
			os.Remove(h.store + "/D")
			h.waitForNames()
		})
	}
}

// TestReplacedDataLinkIsPushed replaces the link ..data in the store, as Kubernetes does
// when it updates a secret volume. It checks that the sidecar pushes the new secret.
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

// TestChangedLinkTargetIsPushed changes files outside the store that links in the store refer
// to. Links in the directory of the store and in bundles must work, and also the links in a
// bundle that is itself a link. The sidecar must get a file event for each change.
func TestChangedLinkTargetIsPushed(t *testing.T) {
	h := newTestHost(t)
	targets := []string{"/one/A", "/two/key", "/three/key"}
	for _, target := range targets {
		storetest.WriteFile(h.dir+target, tripwire)
	}
	h.writeSecret("aws/id", tripwire)
	storetest.WriteFile(h.dir+"/linked/id", tripwire)
	for link, target := range map[string]string{
		h.store + "/A": targets[0], h.store + "/aws/key": targets[1], h.dir + "/linked/key": targets[2], h.store + "/npm": "/linked",
	} {
		if err := os.Symlink(h.dir+target, link); err != nil {
			t.Fatal(err)
		}
	}
	// These links have no targets yet.
	storetest.WriteFile(h.dir+"/later/x", tripwire)
	for link, target := range map[string]string{"LATER": h.dir + "/later/LATER", "DEEP": "../later/new/DEEP"} {
		if err := os.Symlink(target, h.store+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	r := h.runSidecar(nil)
	h.waitForNames("A", "aws", "npm")
	r.waitForLog(h, h.store+"/LATER") // after this, only a file event causes a read
	r.waitForLog(h, h.store+"/DEEP")
	storetest.WriteFile(h.dir+"/later/LATER", tripwire)
	h.waitForNames("A", "LATER", "aws", "npm")
	storetest.WriteFile(h.dir+"/later/new/DEEP", tripwire)
	h.waitForNames("A", "DEEP", "LATER", "aws", "npm")
	for _, target := range targets {
		before := h.status().Generation
		storetest.WriteFile(h.dir+target, tripwire+"changed")
		h.waitForGeneration(before + 1)
	}
}

// TestBadStoreKeepsPushedSet makes the store unreadable. It checks that the secrets in the
// broker do not change, that the sidecar does not log the same error at each poll, and that the
// sidecar logs when the store is readable again.
func TestBadStoreKeepsPushedSet(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	r := h.runSidecar(func(c *Config) { c.Poll = 10 * time.Millisecond })
	h.waitForNames("A")
	storetest.WriteFile(h.dir+"/big/B", strings.Repeat("x", schema.MaxPush))
	storetest.WriteFile(h.dir+"/big/C", "x")
	if err := unix.Renameat2(unix.AT_FDCWD, h.store, unix.AT_FDCWD, h.dir+"/big", unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	r.waitForLog(h, "maximum size of a push")
	os.Rename(h.store, h.dir+"/away")
	r.waitForLog(h, "does not exist")
	h.waitForNames("A")
	os.Rename(h.dir+"/big", h.store)
	r.waitForLog(h, "the store is readable again")
	h.writeSecret("B", tripwire)
	h.waitForNames("A", "B")
	if h.status().Generation != 2 {
		t.Errorf("generation %d, want 2: the sidecar pushed while it could not read the store", h.status().Generation)
	}
	for _, text := range []string{"maximum size of a push", "does not exist"} {
		if n := strings.Count(r.log.String(), text); n != 1 {
			t.Errorf("the sidecar logged the error %q %d times, want 1", text, n)
		}
	}
}

// TestPushAfterBrokerRestart checks that the sidecar pushes again immediately after a
// restart of the broker. It also checks that the sidecar pushes a change that was made
// while no broker was running.
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
	h.writeSecret("B", tripwire) // change the store while no broker is running
	r.waitForLog(h, "cannot connect to the broker; retrying")
	h.startBroker()
	h.waitForNames("A", "B")
}

// TestClearedBrokerStaysEmptyUntilChange removes all secrets from the broker, as an
// operator can do. It checks that the sidecar does not push again until the store
// changes.
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
	r.hideStore(h, h.store) // wait for several polls
	h.waitForNames()
	h.writeSecret("B", tripwire)
	h.waitForNames("A", "B")
}

// TestSignalPushesUnchangedStore checks that the sidecar pushes a store that has not changed if
// it receives a signal. Without this signal, the broker would stay empty after a clear.
func TestSignalPushesUnchangedStore(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	signals := make(chan os.Signal)
	h.runSidecar(func(c *Config) { c.PushNow = signals })
	h.waitForNames("A")
	admin := h.dialAdmin()
	defer admin.Close()
	if err := admin.Clear(context.Background()); err != nil {
		t.Fatal(err)
	}
	signals <- syscall.SIGUSR1
	h.waitForNames("A")
	signals <- syscall.SIGUSR1 // the broker has the secrets, but the operator wants a push
	h.waitForGeneration(3)
}

// TestSecondSidecarIsRefused runs two sidecars with different values for one broker. The
// sidecar that pushes first must win. The other sidecar must log one error, report the
// conflict to the service manager and in the health check, and push as soon as the first
// sidecar has stopped.
func TestSecondSidecarIsRefused(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	first := h.runSidecar(func(c *Config) { c.Poll = 20 * time.Millisecond })
	h.waitForNames("A")
	manager := h.listenForStatuses()
	other := store.Dir{Path: h.dir + "/other"}
	storetest.WriteFile(other.Path+"/A", tripwire+"other")
	second := h.runSidecar(func(c *Config) { c.Poll, c.Store = 5*time.Millisecond, other })
	const refused = "the broker refuses this sidecar, because another sidecar is connected to the same broker"
	second.waitForLog(h, refused)
	manager.waitFor("READY=1\nSTATUS=waiting until another sidecar of the same broker stops")
	if got := healthOf(h, other); !strings.Contains(got, "stop all sidecars of this broker except one") {
		t.Errorf("CheckHealth returned %q for the refused sidecar", got)
	}
	second.hideStore(h, other.Path) // wait until the second sidecar has polled again
	if n := strings.Count(second.log.String(), refused); n != 1 {
		t.Errorf("the second sidecar logged the conflict %d times, want 1:\n%s", n, second.log)
	}
	if g := h.status().Generation; g != 1 {
		t.Errorf("generation %d, want 1: the second sidecar has pushed", g)
	}
	first.stop()
	h.waitForGeneration(2)
	second.waitForLog(h, "pushed the secrets to the broker")
	if text := first.log.String() + second.log.String(); strings.Contains(text, "another client") {
		t.Errorf("a sidecar reported a push of another client:\n%s", text)
	}
	if got := healthOf(h, other); got != "" {
		t.Errorf("CheckHealth after the first sidecar has stopped returned %q", got)
	}
}

// TestRefusedSidecarDoesNotOvertakeAfterBrokerRestart restarts the broker of two sidecars. The
// refused sidecar reconnects first. The secrets of the other sidecar must be loaded again. If the
// other sidecar has stopped, the refused sidecar must push after a restart.
func TestRefusedSidecarDoesNotOvertakeAfterBrokerRestart(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	link := h.dir + "/link" // without this link, the first sidecar cannot connect
	allowFirst := func() {
		if err := os.Symlink(h.server.AdminSocket(), link); err != nil {
			t.Fatal(err)
		}
	}
	allowFirst()
	first := h.runSidecar(func(c *Config) { c.Socket = link })
	h.waitForNames("A")
	other := store.Dir{Path: h.dir + "/other"}
	storetest.WriteFile(other.Path+"/OTHER", tripwire)
	second := h.runSidecar(func(c *Config) { c.Poll, c.Store = 5*time.Millisecond, other })
	second.waitForLog(h, "the broker refuses this sidecar")

	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	h.server.Close()
	h.startBroker()
	admin := h.dialAdmin()
	h.waitUntil("the second sidecar is connected", func() bool {
		status, err := admin.Status(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return status.AdminConnections == 2 // the connections of this test and of the second sidecar
	})
	admin.Close()
	allowFirst()
	h.waitForNames("A")
	h.waitUntil("the second sidecar is refused again", func() bool { return h.status().RefusedSidecars == 1 })
	if g := h.status().Generation; g != 1 {
		t.Errorf("generation %d, want 1: the second sidecar has pushed", g)
	}

	h.server.Close()
	first.stop()
	h.startBroker()
	h.waitForNames("OTHER")
}

// TestRestartedSidecarIsNotRefused restarts a sidecar. The broker must accept the first push
// of the new sidecar.
func TestRestartedSidecarIsNotRefused(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	for generation := range uint64(10) {
		r := h.runSidecar(nil)
		h.waitForGeneration(generation + 1)
		r.stop()
		if strings.Contains(r.log.String(), "level=ERROR") {
			t.Fatalf("the restarted sidecar logged an error:\n%s", r.log)
		}
	}
}

// TestConnectionIsNeverIdle checks that statusInterval is the poll interval, but at most half of the
// time after which the broker closes an idle connection. After the broker has closed the connection,
// another sidecar could push.
func TestConnectionIsNeverIdle(t *testing.T) {
	for poll, want := range map[time.Duration]time.Duration{time.Second: time.Second, 24 * time.Hour: schema.IdleTimeout / 2} {
		if got := (Config{Poll: poll}).statusInterval(); got != want {
			t.Errorf("with the poll interval %v, the sidecar requests the status every %v, want %v", poll, got, want)
		}
	}
}

// TestForeignPushIsReplaced pushes another set to the broker without the sidecar. It
// checks that the sidecar then pushes the set of the store again.
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
	r.waitForLog(h, "another client has pushed to this broker")
	h.waitForNames("A")
}

// TestUnchangedStoreIsNotPushed checks that the sidecar does not push if a program writes
// the same value into a file again.
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
		t.Errorf("generation %d, want 2: the sidecar pushed a set that had not changed", g)
	}
}

// TestOtherProtocolVersionIsRefused checks that the sidecar logs an error if the broker
// uses another protocol version.
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

// TestServiceManagerIsNotified checks the messages that the sidecar sends to the service
// manager. The sidecar must report that it is ready, that it is stopping, and a status
// that contains counts. It must also notify the watchdog. No message may contain a
// secret.
func TestServiceManagerIsNotified(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	waitForMessage := h.listenForStatuses().waitFor
	t.Setenv("WATCHDOG_USEC", "20000")
	r := h.runSidecar(nil)
	waitForMessage("READY=1\nSTATUS=pushed 1 secret, generation 1")
	waitForMessage("WATCHDOG=1")
	h.openForWriting("B", "").Close()
	waitForMessage("READY=1\nSTATUS=pushed 1 secret, generation 1; unusable files: 1")
	os.Rename(h.store, h.dir+"/away")
	waitForMessage("READY=1\nSTATUS=cannot read the store; the secrets in the broker do not change")
	waitForMessage("WATCHDOG=1")
	r.stop()
	waitForMessage("STOPPING=1")
}

// TestCheckHealth checks that CheckHealth succeeds if the broker has the secrets of the store
// and a sidecar is connected. In the other cases of this test, CheckHealth must return an error
// that contains the reason.
func TestCheckHealth(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	const noSidecar = "no sidecar is connected to the broker"
	if got := h.health(); !strings.Contains(got, noSidecar) {
		t.Errorf("CheckHealth before the first push returned: %s", got)
	}
	other := h.dir + "/other"
	signals := make(chan os.Signal)
	r := h.runSidecar(func(c *Config) { c.Store, c.PushNow = store.Dir{Path: other}, signals })
	r.waitForLog(h, "does not exist")
	if got := h.health(); !strings.Contains(got, "the broker has no secrets") {
		t.Errorf("CheckHealth with a sidecar that cannot read its store returned: %s", got)
	}
	storetest.WriteFile(other+"/A", tripwire)
	signals <- syscall.SIGUSR1
	r.waitForLog(h, "the store is readable now")
	h.waitForNames("A")
	if got := h.health(); got != "" {
		t.Errorf("CheckHealth after a push returned: %s", got)
	}
	h.writeSecret("B", tripwire)
	if got := h.health(); !strings.Contains(got, "the sidecar's store: only in the store: B") {
		t.Errorf("CheckHealth with a secret that was not pushed returned: %s", got)
	}
	h.writeSecret("bad name", tripwire)
	h.writeSecret("EMPTY", "")
	for _, want := range []string{"bad name: ", schema.SecretNamePattern, "EMPTY: the file is empty", "only in the store: B"} {
		if got := h.health(); !strings.Contains(got, want) {
			t.Errorf("CheckHealth with several problems returned no %q: %s", want, got)
		}
	}
	for _, name := range []string{"bad name", "EMPTY", "B"} {
		os.Remove(h.store + "/" + name)
	}
	// The sidecar, which reads another store than CheckHealth, reports a problem with its store to the
	// broker.
	storetest.WriteFile(other+"/bad name", tripwire)
	h.waitUntil("the broker knows that the store has a problem", func() bool { return h.status().StoreProblems == 1 })
	if got := h.health(); !strings.Contains(got, "the sidecar reports a problem with its store") {
		t.Errorf("CheckHealth with a problem of the sidecar returned: %s", got)
	}
	r.stop()
	if got := h.health(); !strings.Contains(got, noSidecar) {
		t.Errorf("CheckHealth after the sidecar has stopped returned: %s", got)
	}
	h.server.Close()
	if got := h.health(); !strings.Contains(got, "cannot reach the broker at "+h.dir) {
		t.Errorf("CheckHealth without a running broker returned: %s", got)
	}
}
