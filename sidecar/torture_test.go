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
	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
	"golang.org/x/sys/unix"
)

// valueWithChecksum returns a random value that ends with its hash, so that the test can
// detect a partial value.
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

// TestTorture changes a store with random operations, with events alone and with polling
// alone. After each group of operations, the broker has the same secrets as the store. A
// project never receives a partial value.
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
		testenv.Require(t, os.Geteuid() == 0, "a bind mount requires root")
		h := newTestHost(t)
		bound := filepath.Join(h.dir, "bound")
		if err := os.Mkdir(bound, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(h.store, bound, "", unix.MS_BIND, ""); err != nil {
			testenv.Require(t, false, fmt.Sprint("cannot create a bind mount: ", err))
		}
		t.Cleanup(func() {
			if err := unix.Unmount(bound, 0); err != nil {
				t.Error(err)
			}
		})
		// The directory is not replaced here, because the mount would still show the old
		// directory.
		runTorture(t, operations, h, false, func(c *Config) { c.Store = store.Dir{Path: bound} })
	})
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

	// A project fetches all the time. It must not receive a partial value. The only
	// exception is a write that paused for too long because this machine was slow.
	done := make(chan struct{})
	var reads atomic.Int64
	watcher := make(chan error, 1)
	partial, slowWrites := map[string]string{}, map[string]bool{} // the goroutine owns partial until it ends
	go func() {                                                   // ends when done is closed
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
			// Write slowly, so that the project fetches before the second half is written.
			// If a writer pauses for longer than StablePeriod, the sidecar cannot know that
			// the write is incomplete.
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
		case 12: // replace the link ..data, as Kubernetes does
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
		case 13: // replace the directory with one that contains other secrets
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
		case 14: // a bad name, and no permission unless the test runs as root
			bad := filepath.Join(h.store, "bad name")
			storetest.WriteFile(bad, tripwire)
			os.Chmod(h.store, 0)
			os.Chmod(h.store, 0o700)
			os.Remove(bad)
		case 15: // many events in a short time
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
	for value, source := range partial {
		if !slowWrites[value] {
			t.Errorf("%s is a partial value of %d bytes", source, len(value))
		}
	}
	t.Logf("%d fetches, generation %d; %d writes took longer than %v; %d partial values were fetched", reads.Load(), h.status().Generation, len(slowWrites), store.StablePeriod, len(partial))
}

// TestInotifyQueueOverflowLosesNoChange limits the kernel's event queue to one event. The
// kernel drops the other events, but the sidecar still pushes every change.
func TestInotifyQueueOverflowLosesNoChange(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	restore := setInotifyLimit(t, "max_queued_events", "1")
	h.runSidecar(nil)
	h.waitForNames("A")
	restore() // the existing inotify instance keeps its short queue
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

// TestPollingWithoutInotifyInstance sets the limit of inotify instances to 0. Polling
// detects the changes.
func TestPollingWithoutInotifyInstance(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	// Restore the limit as soon as possible, because it affects other processes.
	restore := setInotifyLimit(t, "max_user_instances", "0")
	r := h.runSidecar(func(c *Config) { c.Poll = 20 * time.Millisecond })
	r.waitForLog(h, "cannot watch the store; polling still detects changes")
	restore()
	h.waitForNames("A")
	h.writeSecret("B", tripwire)
	h.waitForNames("A", "B")
}

// setInotifyLimit sets a limit of inotify(7) until restore is called or the test ends.
func setInotifyLimit(t *testing.T, name, value string) (restore func()) {
	t.Helper()
	path := "/proc/sys/fs/inotify/" + name
	old, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0o600)
	}
	testenv.Require(t, err == nil, fmt.Sprint("cannot set the limits of inotify: ", err))
	restore = func() { os.WriteFile(path, old, 0o600) }
	t.Cleanup(restore)
	return restore
}

// waitForSameContent waits until the project can fetch exactly the secrets in the store.
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
	h.waitUntil(fmt.Sprintf("the broker has the secrets of the store after operation %d", operation), func() bool {
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

// TestBrokerRestartsWhileStoreChanges changes the store while the broker restarts. After
// each restart, the broker gets the current secrets.
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

// TestLargestSetIsPushed pushes a set that is almost as large as the limit of 1 MiB, with
// 5,000 secrets, and then changes it. The sidecar does not push a set over the limit.
func TestLargestSetIsPushed(t *testing.T) {
	h := newTestHost(t)
	for n := range 5000 {
		h.writeSecret(fmt.Sprintf("S%04d", n), tripwire+strings.Repeat("v", 180))
	}
	r := h.runSidecar(nil)
	h.waitUntil("the broker has 5000 secrets", func() bool { return h.status().SecretCount == 5000 })
	h.writeSecret("S0000", tripwire+"other")
	h.waitForGeneration(2)
	// This secret makes the set too large. The broker keeps the previous secrets.
	h.writeSecret("BIG", strings.Repeat("v", schema.MaxPush/2))
	r.waitForLog(h, "the maximum size of a push is 1048576 bytes")
	if s := h.status(); s.SecretCount != 5000 || s.Generation != 2 {
		t.Errorf("%d secrets, generation %d, want 5000 secrets, generation 2", s.SecretCount, s.Generation)
	}
}

// TestReadsDoNotGrowHeap reads the store 10,000 times. The heap does not grow.
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
		t.Errorf("the reader has %d secrets, want 20", len(reader.lastGood))
	}
}

func heapSize() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func discardLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }
