package sidecar

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
	"golang.org/x/sys/unix"
)

// valueWithChecksum returns a value that holds its own hash, so that half of one shows.
func valueWithChecksum(r *rand.Rand) string {
	text := fmt.Sprint(tripwire, r.Uint64(), strings.Repeat("x", r.IntN(3000)))
	sum := sha256.Sum256([]byte(text))
	return text + " " + hex.EncodeToString(sum[:])
}

func checksumMatches(value string) bool {
	text, sum, ok := strings.Cut(value, " ")
	want := sha256.Sum256([]byte(text))
	return ok && sum == hex.EncodeToString(want[:])
}

// TestTorture drives a store with random operations, by events and by polling
// alone. At each quiet point the broker's set equals the store's, and every set
// a project ever sees is whole.
func TestTorture(t *testing.T) {
	operations := 2000
	if testing.Short() {
		operations = 200
	}
	for name, config := range map[string]func(*Config){
		"events":  func(c *Config) { c.Poll = time.Hour },
		"polling": func(c *Config) { c.Poll, c.ignoreEvents = 50*time.Millisecond, true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runTorture(t, operations, newTestHost(t), true, config)
		})
	}
	t.Run("bind mount", func(t *testing.T) {
		t.Parallel()
		skipUnless(t, os.Geteuid() == 0, "a bind mount takes root")
		h := newTestHost(t)
		bound := filepath.Join(h.dir, "bound")
		if err := os.Mkdir(bound, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(h.store, bound, "", unix.MS_BIND, ""); err != nil {
			skipUnless(t, false, fmt.Sprint("no bind mount here: ", err))
		}
		t.Cleanup(func() {
			if err := unix.Unmount(bound, 0); err != nil {
				t.Error(err)
			}
		})
		// A mount goes on showing a directory that was replaced outside.
		runTorture(t, operations, h, false, func(c *Config) { c.Store = store.Dir{Path: bound} })
	})
}

// skipUnless skips a test that this machine cannot run, with the reason; in CI that
// is a failure.
func skipUnless(t *testing.T, possible bool, reason string) {
	t.Helper()
	if possible {
		return
	}
	if os.Getenv("KEYHATCH_TEST_ALL") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

func runTorture(t *testing.T, operations int, h *testHost, replaceDir bool, config func(*Config)) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	names := []schema.SecretName{}
	manifest := "schema_version: 1\nproject: api\nsecrets:\n"
	for i := range 12 {
		names = append(names, schema.SecretName(fmt.Sprintf("S%d", i)))
		manifest += fmt.Sprintf("  S%d:\n", i)
	}
	manifest += "  LINKED:\n"
	admin := h.dialAdmin()
	defer admin.Close()
	if _, err := admin.Register(context.Background(), schema.RegisterRequest{Name: "api", ProjectPath: "/nowhere/api", Manifest: &manifest}); err != nil {
		t.Fatal(err)
	}
	h.runSidecar(config)
	project := client.NewProject(h.dir + "/run/projects/api/broker.sock")

	// A project looks on all the time: it must see nothing that is not whole, but
	// for what stood still for too long, because this machine did.
	done := make(chan struct{})
	var reads atomic.Int64
	watcher := make(chan error, 1)
	partial, slowWrites := map[string]string{}, map[string]bool{} // partial is the watcher's until it has ended
	go func() {                                                   // ended by done
		for {
			select {
			case <-done:
				watcher <- nil
				return
			default:
			}
			got, err := project.GetMany(context.Background(), nil, 0)
			if err != nil {
				watcher <- err
				return
			}
			for name, value := range got.Secrets {
				if !checksumMatches(*value.Value) {
					partial[*value.Value] = fmt.Sprintf("%s of generation %d", name, got.Generation)
				}
			}
			reads.Add(1)
		}
	}()

	dir := store.Dir{Path: h.store}
	path := func() string { return filepath.Join(h.store, string(names[r.IntN(len(names))])) }
	for n := range operations {
		switch r.IntN(20) {
		case 0, 1, 2, 3, 4: // by rename
			if err := dir.Set(filepath.Base(path()), []byte(valueWithChecksum(r))); err != nil {
				t.Fatal(err)
			}
		case 5, 6, 7, 8: // truncate, and write in two halves
			f, err := os.OpenFile(path(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			value := valueWithChecksum(r)
			half := r.IntN(len(value))
			wrote := time.Now()
			f.WriteString(value[:half])
			// A slow writer: a project looks before the rest comes. One that stands
			// still for longer than StablePeriod cannot be told from one that is done.
			for seen, start := reads.Load(), time.Now(); reads.Load() < seen+5 && time.Since(start) < store.StablePeriod/5; {
				runtime.Gosched()
			}
			f.WriteString(value[half:])
			f.Close()
			if time.Since(wrote) > store.StablePeriod {
				slowWrites[value[:half]] = true
			}
		case 9, 10, 11:
			os.Remove(path())
		case 12: // Kubernetes' layout, its link swapped
			versioned := fmt.Sprintf("..v%d", n)
			storetest.WriteFile(filepath.Join(h.store, versioned, "LINKED"), valueWithChecksum(r))
			tmp := filepath.Join(h.store, "..tmp")
			os.Remove(tmp)
			if err := os.Symlink(versioned, tmp); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(tmp, filepath.Join(h.store, "..data")); err != nil {
				t.Fatal(err)
			}
			os.Symlink("..data/LINKED", filepath.Join(h.store, "LINKED"))
		case 13: // the directory is replaced by another, with other secrets
			if !replaceDir {
				continue
			}
			next := filepath.Join(h.dir, fmt.Sprint("next", n))
			storetest.WriteFile(filepath.Join(next, "S0"), valueWithChecksum(r))
			old := filepath.Join(h.dir, fmt.Sprint("old", n))
			if err := os.Rename(h.store, old); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(next, h.store); err != nil {
				t.Fatal(err)
			}
			os.RemoveAll(old)
		case 14: // bad for a while: a name, or permission lost where that counts
			bad := filepath.Join(h.store, "bad name")
			storetest.WriteFile(bad, tripwire)
			os.Chmod(h.store, 0)
			os.Chmod(h.store, 0o700)
			os.Remove(bad)
		case 15: // more events than a queue holds would be merged: a burst
			for range 100 {
				name := filepath.Join(h.store, ".burst")
				storetest.WriteFile(name, "x")
				os.Remove(name)
			}
		default:
			storetest.WriteFile(path(), valueWithChecksum(r))
		}
		if n%(operations/20) == operations/20-1 {
			waitForSameContent(t, h, project, n)
		}
	}
	close(done)
	if err := <-watcher; err != nil {
		t.Error(err)
	}
	for value, where := range partial {
		if !slowWrites[value] {
			t.Errorf("%s is %d bytes that are not whole", where, len(value))
		}
	}
	t.Logf("%d looks, generation %d; %d writes stood still for over %v, and %d of them were seen", reads.Load(), h.status().Generation, len(slowWrites), store.StablePeriod, len(partial))
}

// TestInotifyQueueOverflowLosesNoChange has the kernel keep a single event: the rest are lost, and
// nothing else is.
func TestInotifyQueueOverflowLosesNoChange(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	restore := setInotifyLimit(t, "max_queued_events", "1")
	h.runSidecar(nil)
	h.waitForNames("A")
	restore() // the watcher that is there keeps its short queue
	var want []schema.SecretName
	for n := range 300 {
		name := fmt.Sprintf("S%03d", n)
		h.writeSecret("new/"+name, tripwire)
		if err := os.Rename(h.store+"/new/"+name, h.store+"/"+name); err != nil {
			t.Fatal(err)
		}
		want = append(want, schema.SecretName(name))
	}
	os.Remove(h.store + "/A")
	h.waitForNames(want...)
}

// TestPollingWithoutInotifyInstance has the kernel give out no watcher at all: polling does it.
func TestPollingWithoutInotifyInstance(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	// For as short as can be: the limit is everybody's.
	restore := setInotifyLimit(t, "max_user_instances", "0")
	r := h.runSidecar(func(c *Config) { c.Poll = 20 * time.Millisecond })
	r.waitForLog(h, "the store cannot be watched; polling finds its changes")
	restore()
	h.waitForNames("A")
	h.writeSecret("B", tripwire)
	h.waitForNames("A", "B")
}

// setInotifyLimit sets one of inotify(7)'s limits until restore is called, or the
// test ends.
func setInotifyLimit(t *testing.T, name, value string) (restore func()) {
	t.Helper()
	path := "/proc/sys/fs/inotify/" + name
	old, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0o600)
	}
	skipUnless(t, err == nil, fmt.Sprint("inotify's limits cannot be set: ", err))
	restore = func() { os.WriteFile(path, old, 0o600) }
	t.Cleanup(restore)
	return restore
}

// waitForSameContent waits until the project sees exactly what is in the store.
func waitForSameContent(t *testing.T, h *testHost, project *client.Project, operation int) {
	t.Helper()
	want := map[schema.SecretName]string{}
	set, err := store.Dir{Path: h.store}.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range set {
		want[name] = string(value.Bytes)
	}
	h.waitUntil(fmt.Sprintf("after operation %d the broker holds what the store has", operation), func() bool {
		got, err := project.GetMany(context.Background(), nil, 0)
		if err != nil || got.Generation == 0 || len(got.Secrets) != len(want) {
			return false
		}
		for name, value := range got.Secrets {
			if want[name] != *value.Value {
				return false
			}
		}
		return true
	})
}

// TestBrokerRestartsWhileStoreChanges: it converges each time.
func TestBrokerRestartsWhileStoreChanges(t *testing.T) {
	restarts := 200
	if testing.Short() {
		restarts = 20
	}
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	h.runSidecar(nil)
	h.waitForNames("A")
	want := []schema.SecretName{"A"}
	for n := range restarts {
		h.server.Close()
		if n%4 == 0 {
			name := schema.SecretName(fmt.Sprintf("B%03d", n))
			h.writeSecret(string(name), tripwire)
			want = append(want, name)
			slices.Sort(want)
		}
		h.startBroker()
		h.waitForNames(want...)
	}
}

// TestLargestSetIsPushed pushes as much as there may be, and reloads it: 5,000 secrets,
// close to 1 MiB.
func TestLargestSetIsPushed(t *testing.T) {
	h := newTestHost(t)
	for n := range 5000 {
		h.writeSecret(fmt.Sprintf("S%04d", n), tripwire+strings.Repeat("v", 180))
	}
	r := h.runSidecar(nil)
	h.waitUntil("5000 secrets", func() bool { return h.status().SecretCount == 5000 })
	h.writeSecret("S0000", tripwire+"other")
	h.waitForGeneration(2)
	// One step over the limit: the last good set stays.
	h.writeSecret("BIG", strings.Repeat("v", schema.MaxPush/2))
	r.waitForLog(h, "the maximum size of a push is 1048576 bytes")
	if s := h.status(); s.SecretCount != 5000 || s.Generation != 2 {
		t.Errorf("%d secrets, generation %d", s.SecretCount, s.Generation)
	}
}

// TestReadsDoNotGrowHeap reads and compares 10,000 times: the heap does not grow.
func TestReadsDoNotGrowHeap(t *testing.T) {
	reloads := 10000
	if testing.Short() {
		reloads = 1000
	}
	h := newTestHost(t)
	for n := range 20 {
		h.writeSecret(fmt.Sprintf("S%d", n), tripwire+strings.Repeat("v", 1000))
	}
	// Read waits until the files have been stable for long enough, so the reads below
	// do not wait.
	if _, err := (store.Dir{Path: h.store}).Read(context.Background()); err != nil {
		t.Fatal(err)
	}
	w := newWatcher(discardLogger(), func(string) bool { return false })
	defer w.close()
	reader := newStoreReader(store.Dir{Path: h.store}, w, discardLogger())
	for range 100 {
		reader.acceptResult(context.Background(), reader.read(context.Background()))
	}
	before := heapSize()
	for range reloads {
		reader.acceptResult(context.Background(), reader.read(context.Background()))
	}
	if after := heapSize(); after > before+before/2+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	if reader.lastGood == nil || len(reader.lastGood) != 20 {
		t.Error("nothing was read")
	}
}

func heapSize() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func discardLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }
