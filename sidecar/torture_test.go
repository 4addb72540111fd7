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

// valueWithChecksum returns a random text and, at the end, the hash of this text. With
// the hash, a test can detect that it received only a part of the value.
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

// TestTorture changes a store with random operations. One subtest uses only file events,
// one uses only polling, and one uses a store in a bind mount. After each group of
// operations, the broker must have the same secrets as the store. A project must never
// receive only a part of a value.
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
		// Do not replace the directory of the store in this subtest, because the bind
		// mount would still show the old directory.
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

	// A goroutine fetches the project's secrets again and again. It must not receive a
	// partial value. The only exception is a write that took longer than StablePeriod,
	// because the machine that runs the test was slow.
	done := make(chan struct{})
	var reads atomic.Int64
	watcher := make(chan error, 1)
	// partial maps each partial value to a description. Only the fetching goroutine uses
	// partial until that goroutine ends.
	partial, slowWrites := map[string]string{}, map[string]bool{}
	go func() { // ends when done is closed
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
		case 0, 1, 2, 3, 4: // write a secret by renaming a complete file
			if err := dir.Set(filepath.Base(path()), []byte(valueWithChecksum(r))); err != nil {
				t.Fatal(err)
			}
		case 5, 6, 7, 8: // truncate a file, and then write the new value in two parts
			f, err := os.OpenFile(path(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			value := valueWithChecksum(r)
			half := r.IntN(len(value))
			wrote := time.Now()
			f.WriteString(value[:half])
			// Wait before writing the second part, so that the project fetches while the
			// file is incomplete. If a program pauses for longer than StablePeriod during
			// a write, the sidecar cannot know that the file is incomplete. Therefore
			// wait for a shorter time.
			for seen, start := reads.Load(), time.Now(); reads.Load() < seen+5 && time.Since(start) < 20*time.Millisecond; {
				runtime.Gosched()
			}
			f.WriteString(value[half:])
			f.Close()
			if time.Since(wrote) > 100*time.Millisecond {
				slowWrites[value[:half]] = true
			}
		case 9, 10, 11: // remove a secret
			os.Remove(path())
		case 12: // replace the link ..data, as Kubernetes does for an update
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
		case 13: // replace the store's directory with another directory that contains one secret
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
		// Create a file with a bad name. Then remove and restore the permission to read
		// the store. If the test runs as root, the missing permission has no effect.
		case 14:
			bad := filepath.Join(h.store, "bad name")
			storetest.WriteFile(bad, tripwire)
			os.Chmod(h.store, 0)
			os.Chmod(h.store, 0o700)
			os.Remove(bad)
		case 15: // cause many file events in a short time
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
			t.Errorf("the project fetched only a part of the value of %s: %d bytes", source, len(value))
		}
	}
	t.Logf("%d fetches, generation %d; %d writes took longer than %v; the project fetched %d partial values", reads.Load(), h.status().Generation, len(slowWrites), 100*time.Millisecond, len(partial))
}

// TestInotifyQueueOverflowLosesNoChange limits the kernel's inotify queue to one event,
// so that the kernel discards many events. It checks that the sidecar still pushes every
// change.
func TestInotifyQueueOverflowLosesNoChange(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	restore := setInotifyLimit(t, "max_queued_events", "1")
	h.runSidecar(nil)
	h.waitForNames("A")
	restore() // the old limit does not affect the inotify instance of the running sidecar
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

// TestPollingWithoutInotifyInstance sets the limit of inotify instances to 0. It checks
// that the sidecar still detects changes of the store with polling.
func TestPollingWithoutInotifyInstance(t *testing.T) {
	h := newTestHost(t)
	h.writeSecret("A", tripwire)
	// Restore the limit as soon as possible, because it affects other processes.
	restore := setInotifyLimit(t, "max_user_instances", "0")
	r := h.runSidecar(func(c *Config) { c.Poll = 20 * time.Millisecond })
	r.waitForLog(h, "cannot watch the store for changes; polling still detects changes")
	restore()
	h.waitForNames("A")
	h.writeSecret("B", tripwire)
	h.waitForNames("A", "B")
}

// setInotifyLimit sets a limit that inotify(7) describes. The new limit applies until the
// test calls restore, or until the test ends.
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

// waitForSameContent waits until the secrets that the project can fetch are exactly the
// secrets in the store.
func waitForSameContent(t *testing.T, h *testHost, project *client.Project, operation int) {
	t.Helper()
	want := map[schema.SecretName]string{}
	reading, err := store.Dir{Path: h.store}.Read(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range reading.Set {
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

// TestBrokerRestartsWhileStoreChanges changes the store while the broker restarts. It
// checks that the sidecar pushes the current secrets after each restart.
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

// TestLargestSetIsPushed checks that the sidecar pushes a set with 5,000 secrets that is
// almost as large as the limit of 1 MiB, and that it pushes a change of this set. The
// sidecar must not push a set that exceeds the limit.
func TestLargestSetIsPushed(t *testing.T) {
	h := newTestHost(t)
	for n := range 5000 {
		h.writeSecret(fmt.Sprintf("S%04d", n), tripwire+strings.Repeat("v", 180))
	}
	r := h.runSidecar(nil)
	h.waitUntil("the broker has 5000 secrets", func() bool { return h.status().SecretCount == 5000 })
	h.writeSecret("S0000", tripwire+"other")
	h.waitForGeneration(2)
	// Write a secret that makes the set too large. The secrets in the broker must not
	// change.
	h.writeSecret("BIG", strings.Repeat("v", schema.MaxPush/2))
	r.waitForLog(h, "the maximum size of a push is 1048576 bytes")
	if s := h.status(); s.SecretCount != 5000 || s.Generation != 2 {
		t.Errorf("the broker has %d secrets and generation %d, want 5000 secrets and generation 2", s.SecretCount, s.Generation)
	}
}

// TestReadsDoNotGrowHeap reads the store 10,000 times. It checks that the heap does not
// grow.
func TestReadsDoNotGrowHeap(t *testing.T) {
	reloads := 10000
	if testing.Short() {
		reloads = 1000
	}
	h := newTestHost(t)
	for n := range 20 {
		h.writeSecret(fmt.Sprintf("S%d", n), tripwire+strings.Repeat("v", 1000))
	}
	// Read the store once before the measurement. This first Read waits until the files
	// have been unchanged for long enough, so all later reads return without waiting.
	if _, err := (store.Dir{Path: h.store}).Read(context.Background(), nil); err != nil {
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
	if len(reader.lastGood.Set) != 20 {
		t.Errorf("the reader has %d secrets, want 20", len(reader.lastGood.Set))
	}
}

func heapSize() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func discardLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }
