package sidecar

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
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

// TestTorture changes a store with random operations: complete, slow, and failing writes,
// editors, links, and removals. One subtest uses only file events, one uses only polling, and
// one uses a store in a bind mount. A project must never receive only a part of a value, and
// must never miss a secret that is always in the store. When the changes pause, the broker must
// get the values that are in the store.
func TestTorture(t *testing.T) {
	for name, config := range map[string]func(*Config){
		"events":  func(c *Config) { c.Poll = time.Hour },
		"polling": func(c *Config) { c.Poll, c.ignoreEvents = 50*time.Millisecond, true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newTestHost(t)
			newTorture(t, h, config).run(tortureOperations(), (*torture).replaceDir)
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
		newTorture(t, h, func(c *Config) { c.Store = store.Dir{Path: bound} }).run(tortureOperations())
	})
}

// TestTortureWithUnmounts is like TestTorture, but the store is a tmpfs that is unmounted and
// mounted again while the sidecar polls the store.
func TestTortureWithUnmounts(t *testing.T) {
	if !runInNamespaces(t, syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS) {
		return
	}
	h := newTestHost(t)
	files := filepath.Join(h.dir, "files")
	err := os.Mkdir(files, 0o700)
	if err == nil {
		err = unix.Mount("tmpfs", files, "tmpfs", 0, "mode=700")
	}
	if err == nil {
		err = unix.Mount(files, h.store, "", unix.MS_BIND, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	newTorture(t, h, func(c *Config) { c.Poll = 10 * time.Millisecond }).run(tortureOperations()/4, func(tt *torture) {
		if err := unix.Unmount(h.store, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		tt.waitForFetches()
		if err := unix.Mount(files, h.store, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	})
}

func tortureOperations() int {
	if testing.Short() {
		return 200
	}
	return 2000
}

// A torture changes the store of a testHost and knows which values the broker may have.
type torture struct {
	t         *testing.T
	h         *testHost
	r         *rand.Rand
	dir       store.Dir
	project   *client.Project
	fetches   atomic.Int64
	operation int
	// writers contains the files that are open for writing. The keys are the names of their secrets.
	writers map[string]tortureWriter
	// allowed contains the values that the broker may have after all changes have arrived. ""
	// means that the secret does not exist. If a program truncates a file and then fails, the
	// broker keeps the value that the sidecar has read last. This can be any value in recent.
	allowed, recent map[string][]string
	reached         map[string]int // how often each kind of operation was performed
}

type tortureWriter struct {
	file        *os.File
	value, rest string // rest is the part of value that is not written yet
}

// The tests change these secrets, but they never remove them.
var permanentNames = []string{"KEEP0", "KEEP1"}

func newTorture(t *testing.T, h *testHost, config func(*Config)) *torture {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	tt := &torture{
		t: t, h: h, r: rand.New(rand.NewPCG(seed, 0)), dir: store.Dir{Path: h.store},
		writers: map[string]tortureWriter{}, allowed: map[string][]string{}, recent: map[string][]string{}, reached: map[string]int{},
	}
	names := append([]string{"LINKED"}, permanentNames...)
	for i := range 12 {
		names = append(names, fmt.Sprint("S", i))
	}
	for _, name := range names {
		tt.record(name, "")
	}
	for _, name := range permanentNames {
		value := valueWithChecksum(tt.r)
		storetest.WriteFile(h.store+"/"+name, value)
		tt.record(name, value)
	}
	// Files that can never be used must not delay the other secrets.
	storetest.WriteFile(h.store+"/other bad name", tripwire)
	for path, create := range map[string]func(path string) error{
		"DANGLING": func(path string) error { return os.Symlink("nowhere", path) },
		"FIFO":     func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		if err := create(h.store + "/" + path); err != nil {
			t.Fatal(err)
		}
	}
	tt.project = h.registerProject(names...)
	h.runSidecar(func(c *Config) {
		config(c)
		c.Read = readInChild(c.Store.(store.Dir).Path)
	})
	h.waitForGeneration(1)
	return tt
}

// record records that the store now contains this complete value. The value "" means that the
// store does not contain the secret.
func (tt *torture) record(name, value string) {
	if w, isOpen := tt.writers[name]; isOpen {
		w.file.Close() // an operation has replaced or removed the open file
		delete(tt.writers, name)
	}
	tt.allowed[name] = []string{value}
	tt.recent[name] = append(tt.recent[name], value)
}

func (tt *torture) path(name string) string { return filepath.Join(tt.h.store, name) }

// waitForFetches waits until the project has fetched five times, but at most 50 ms.
func (tt *torture) waitForFetches() {
	for seen, start := tt.fetches.Load(), time.Now(); tt.fetches.Load() < seen+5 && time.Since(start) < 50*time.Millisecond; {
		runtime.Gosched()
	}
}

// open truncates a file and writes the first part of a value. finish writes the rest.
func (tt *torture) open(name string) {
	f, err := os.OpenFile(tt.path(name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		tt.t.Fatal(err)
	}
	value := valueWithChecksum(tt.r)
	half := tt.r.IntN(len(value))
	f.WriteString(value[:half])
	tt.writers[name] = tortureWriter{f, value, value[half:]}
}

func (tt *torture) finish(name string) {
	w := tt.writers[name]
	w.file.WriteString(w.rest)
	tt.record(name, w.value) // closes the file
}

// run performs random operations. extra contains additional operations.
func (tt *torture) run(operations int, extra ...func(*torture)) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() { // ends when done is closed
		defer close(ended)
		tt.fetch(done)
	}()
	for tt.operation = range operations {
		tt.change(extra)
		if tt.operation%(operations/8) == operations/8-1 {
			tt.sync()
		}
		if tt.t.Failed() {
			break
		}
	}
	close(done)
	<-ended
	tt.t.Logf("%d fetches, generation %d, operations %v", tt.fetches.Load(), tt.h.status().Generation, tt.reached)
}

// fetch fetches the project's secrets until done is closed. The test fails if the project receives only
// a part of a value, or if a permanent secret is missing.
func (tt *torture) fetch(done chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		got, err := tt.project.GetMany(context.Background(), nil, 0)
		if err != nil {
			tt.t.Error(err)
			return
		}
		for name, value := range got.Secrets {
			if !checksumMatches(*value.Value) {
				tt.t.Errorf("the project fetched only a part of the value of %s in generation %d: %d bytes", name, got.Generation, len(*value.Value))
				return
			}
		}
		for _, name := range permanentNames {
			if _, exists := got.Secrets[schema.SecretName(name)]; !exists {
				tt.t.Errorf("%s is missing in generation %d", name, got.Generation)
				return
			}
		}
		tt.fetches.Add(1)
	}
}

// sync finishes all writes, and waits until the broker has the values of the store.
func (tt *torture) sync() {
	tt.t.Helper()
	for name := range tt.writers {
		tt.finish(name)
	}
	tt.h.waitUntil(fmt.Sprintf("the broker has the secrets of the store after operation %d", tt.operation), func() bool {
		got, err := tt.project.GetMany(context.Background(), nil, 0)
		if err != nil {
			return false
		}
		for name, allowed := range tt.allowed {
			value := ""
			if secret, exists := got.Secrets[schema.SecretName(name)]; exists {
				value = *secret.Value
			}
			if !slices.Contains(allowed, value) {
				return false
			}
		}
		return true
	})
	for name, allowed := range tt.allowed {
		tt.recent[name] = slices.Clone(allowed)
	}
}

// change performs one random operation.
func (tt *torture) change(extra []func(*torture)) {
	t, r, h := tt.t, tt.r, tt.h
	removable := fmt.Sprint("S", r.IntN(12))
	name := removable
	if r.IntN(6) == 0 {
		name = permanentNames[r.IntN(len(permanentNames))]
	}
	_, isOpen := tt.writers[name]
	kind := ""
	switch n := r.IntN(40); {
	case n < 8:
		kind = "rename"
		value := valueWithChecksum(r)
		if err := tt.dir.Set(context.Background(), name, []byte(value)); err != nil {
			t.Fatal(err)
		}
		tt.record(name, value)
	case n < 14 && !isOpen:
		kind = "write in two parts"
		tt.open(name)
		tt.waitForFetches()
		tt.finish(name)
	case n < 18 && !isOpen:
		kind = "begin to write"
		tt.open(name)
	case n < 18:
		kind = "finish to write"
		tt.finish(name)
	case n < 21 && !isOpen:
		kind = "truncate and fail"
		// Write no part of the value, because the sidecar would push a part of a value if the file is
		// closed.
		h.openForWriting(name, "").Close()
		tt.allowed[name] = slices.Clone(tt.recent[name])
	case n < 26:
		kind = "remove"
		os.Remove(tt.path(removable))
		tt.record(removable, "")
	case n < 28: // replace the link ..data, as Kubernetes does for an update
		kind = "link"
		value := valueWithChecksum(r)
		h.replaceDataLink("LINKED", value)
		tt.record("LINKED", value)
	// Create a file with a bad name, remove and restore the permission to read the store, and
	// remove the file. If the test runs as root, the missing permission has no effect.
	case n < 30:
		kind = "bad name"
		bad := tt.path("bad name")
		storetest.WriteFile(bad, tripwire)
		os.Chmod(h.store, 0)
		os.Chmod(h.store, 0o700)
		os.Remove(bad)
	case n < 31: // cause many file events in a short time
		kind = "burst"
		for range 100 {
			storetest.WriteFile(tt.path(".burst"), "x")
			os.Remove(tt.path(".burst"))
		}
	case n < 33:
		kind = tt.useTool(name)
	case n < 35 && len(extra) > 0:
		kind = "extra"
		extra[r.IntN(len(extra))](tt)
	case !isOpen:
		kind = "write"
		value := valueWithChecksum(r)
		storetest.WriteFile(tt.path(name), value)
		tt.record(name, value)
	}
	tt.reached[kind]++
}

// replaceDir replaces the store's directory with another directory that contains all secrets. If a
// secret were missing, the sidecar would wait for a confirmation.
func (tt *torture) replaceDir() {
	if tt.r.IntN(3) > 0 {
		return // replace the directory less often, because sync takes a long time
	}
	next, old := tt.h.dir+"/next", tt.h.dir+"/old"
	values := map[string]string{}
	for name := range tt.allowed {
		values[name] = valueWithChecksum(tt.r)
		file := name
		if name == "LINKED" {
			file = "..first/LINKED"
			os.MkdirAll(next, 0o700)
			for link, target := range map[string]string{"..data": "..first", "LINKED": "..data/LINKED"} {
				if err := os.Symlink(target, filepath.Join(next, link)); err != nil {
					tt.t.Fatal(err)
				}
			}
		}
		storetest.WriteFile(filepath.Join(next, file), values[name])
	}
	// Exchange the directories in one step. If the store were missing for a moment, the sidecar would
	// push changes later.
	if err := unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, tt.h.store, unix.RENAME_EXCHANGE); err != nil {
		tt.t.Fatal(err)
	}
	if err := os.Rename(next, old); err != nil {
		tt.t.Fatal(err)
	}
	os.RemoveAll(old)
	for name := range tt.allowed {
		tt.record(name, values[name])
	}
	tt.sync() // so that the sidecar reads the new directory before a secret is removed
}

// useTool changes a secret with an editor or another program. It returns the program's name.
// Programs that are not installed are not used.
func (tt *torture) useTool(name string) string {
	// Do not use vim and tar for the permanent secrets. These programs remove the old file
	// before they create the new file, and the removal of a file removes the secret.
	tools := []string{"sh", "sed", "rsync", "rsync --inplace", "tar --overwrite", "mv"}
	if !slices.Contains(permanentNames, name) {
		tools = append(tools, "vim", "tar")
	}
	tool := tools[tt.r.IntN(len(tools))]
	_, isOpen := tt.writers[name]
	info, err := os.Stat(tt.path(name))
	if _, missing := exec.LookPath(strings.Fields(tool)[0]); missing != nil || isOpen || err != nil || info.Size() == 0 {
		return "" // sed and vim need a file with content
	}
	value := valueWithChecksum(tt.r)
	source := filepath.Join(tt.h.dir, "source", name)
	storetest.WriteFile(source, value)
	command := map[string]string{
		"sh":              `(head -c 5 "$1"; sleep 0.03; tail -c +6 "$1") >"$2"`,
		"sed":             `sed -i "1s/.*/$3/" "$2"`,
		"rsync":           `rsync --ignore-times "$1" "$2"`,
		"rsync --inplace": `rsync --ignore-times --inplace "$1" "$2"`,
		"tar --overwrite": `tar cf - -C "${1%/*}" "${1##*/}" | tar xf - --overwrite -C "${2%/*}"`,
		"mv":              `cp "$1" "$2.swp" && mv "$2.swp" "$2"`,
		"vim":             `vim -u NONE -i NONE -es -c "call setline(1, '$3')" -c wq "$2" </dev/null`,
		"tar":             `tar cf - -C "${1%/*}" "${1##*/}" | tar xf - -C "${2%/*}"`,
	}[tool]
	if out, err := exec.Command("sh", "-c", command, "sh", source, tt.path(name), value).CombinedOutput(); err != nil {
		tt.t.Fatalf("%s failed: %v\n%s", tool, err, out)
	}
	tt.record(name, value)
	return tool
}
