package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"golang.org/x/sys/unix"
)

// storeFormats contains a function for each kind and format of a store. The function writes a store
// that contains the given values, and returns the flags that select this store.
var storeFormats = map[string]func(t *testing.T, dir string, values [][]byte) (flags []string){
	"dir": func(t *testing.T, dir string, values [][]byte) []string {
		writeDirStore(t, dir, values)
		return []string{"--store", "dir:" + dir}
	},
	"dotenv": func(t *testing.T, dir string, values [][]byte) []string {
		return writeStoreFile(t, dir+"/.env", formatLines("S%d=%s\n", values))
	},
	"json": func(t *testing.T, dir string, values [][]byte) []string {
		secrets := map[string]string{}
		for i, value := range values {
			secrets[fmt.Sprint("S", i)] = string(value)
		}
		text, err := json.Marshal(secrets)
		if err != nil {
			t.Fatal(err)
		}
		return writeStoreFile(t, dir+"/a.json", string(text))
	},
	"yaml": func(t *testing.T, dir string, values [][]byte) []string {
		return writeStoreFile(t, dir+"/a.yaml", formatLines("S%d: %s\n", values))
	},
	"exec": func(t *testing.T, dir string, values [][]byte) []string {
		writeStoreFile(t, dir+"/source", formatLines("S%d: {user: a, password: %s}\n", values))
		return []string{"--store", "exec:cat " + dir + "/source", "--format", "yaml", "--watch", dir + "/source"}
	},
	"merged": func(t *testing.T, dir string, values [][]byte) []string {
		if err := os.MkdirAll(dir+"/sub", 0o700); err != nil {
			t.Fatal(err)
		}
		writeDirStore(t, dir+"/sub", values[:1])
		file := writeStoreFile(t, dir+"/.env", formatLines("E%d=%s\n", values[1:]))
		return append(file, "--store", "dir:"+dir+"/sub")
	},
}

func formatLines(format string, values [][]byte) string {
	var text strings.Builder
	for i, value := range values {
		fmt.Fprintf(&text, format, i, value)
	}
	return text.String()
}

// writeStoreFile replaces the file in one step, so that the sidecar sees one change.
func writeStoreFile(t *testing.T, path, text string) (flags []string) {
	t.Helper()
	next := filepath.Join(filepath.Dir(path), ".next")
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
	return []string{"--store", "file:" + path}
}

func writeDirStore(t *testing.T, dir string, values [][]byte) {
	t.Helper()
	old, err := filepath.Glob(dir + "/S*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for i, value := range values {
		if err := os.WriteFile(fmt.Sprintf("%s/S%d", dir, i), value, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSidecarKeepsSecretsOnlyInLockedMemory counts the copies of secrets in the memory of the
// sidecar after a push, and after a push that removes these secrets. The locked memory must
// contain one copy of each secret of the store. There must be no other copy.
func TestSidecarKeepsSecretsOnlyInLockedMemory(t *testing.T) {
	testenv.RequireMemoryAccess(t)
	for _, memory := range []string{"memfd_secret", "mlock"} {
		for name, writeStore := range storeFormats {
			t.Run(name+" in "+memory, func(t *testing.T) {
				if memory == "memfd_secret" {
					fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
					testenv.Require(t, err == nil, "the kernel does not provide memfd_secret")
					unix.Close(fd)
				}
				h := newTestHost(t, 0)
				old, current := randomValues(100), randomValues(50)
				flags := writeStore(t, h.dir+"/store", old)
				cmd := h.command(h.dir+"/keyhatch-sidecar", append([]string{"run", "--socket", h.adminSocket()}, flags...)...)
				if memory == "mlock" {
					cmd = withoutMemfdSecret(h, cmd)
				}
				sidecar := startProcess(t, cmd)
				sidecar.waitForLine("secrets=100 ")
				want := 0 // copies in memfd_secret memory are not readable
				if memory == "mlock" {
					want = 1
				}
				check := func(when string, values [][]byte, want int) {
					t.Helper()
					checkCopies(t, sidecar, when, values, want)
				}
				check("after the push", old, want)
				writeStore(t, h.dir+"/store", current)
				// If the sidecar reads the store in the middle of the change, it pushes twice.
				// Therefore repeat the check until it succeeds.
				sidecar.waitForLine("secrets=50 ")
				for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
					oldInArenas, oldElsewhere := countCopies(t, sidecar.cmd.Process.Pid, old)
					inArenas, elsewhere := countCopies(t, sidecar.cmd.Process.Pid, current)
					if oldInArenas+oldElsewhere+elsewhere == 0 && inArenas == want*len(current) {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("after the change, the memory contains %d old secrets in arenas and %d elsewhere, and %d current secrets in arenas and %d elsewhere; want %d current secrets in arenas",
							oldInArenas, oldElsewhere, inArenas, elsewhere, want*len(current))
					}
				}
			})
		}
	}
}

// withoutMemfdSecret returns a command that runs cmd without memfd_secret. The arenas are
// then in locked memory, which is readable.
func withoutMemfdSecret(h *testHost, cmd *exec.Cmd) *exec.Cmd {
	cmd = h.command(os.Args[0], cmd.Args...)
	cmd.Env = append(os.Environ(), "KEYHATCH_TEST_AS=program-without-memfd-secret")
	return cmd
}

// checkCopies checks that the arenas of a process contain want copies of each value, and that the
// rest of the memory contains no copy.
func checkCopies(t *testing.T, p *process, when string, values [][]byte, want int) {
	t.Helper()
	arenas, elsewhere := countCopies(t, p.cmd.Process.Pid, values)
	if arenas != want*len(values) || elsewhere > 0 {
		t.Errorf("%s, the memory contains %d copies of %d secrets in arenas and %d elsewhere; want %d in arenas", when, arenas, len(values), elsewhere, want*len(values))
	}
}

// TestOldValuesOfIncompleteFilesAreOnlyInLockedMemory truncates files of the store and changes
// another file. The sidecar must send the old values to the process that reads the store, and
// must still have one copy of these values, in locked memory. When the files are complete again,
// the old values must be wiped.
func TestOldValuesOfIncompleteFilesAreOnlyInLockedMemory(t *testing.T) {
	testenv.RequireMemoryAccess(t)
	h := newTestHost(t, 0)
	dir := h.dir + "/store"
	old, current, other := randomValues(50), randomValues(50), randomValues(1)
	writeDirStore(t, dir, old)
	sidecar := startProcess(t, withoutMemfdSecret(h, h.command(h.dir+"/keyhatch-sidecar", "run", "--socket", h.adminSocket(), "--store", "dir:"+dir)))
	sidecar.waitForLine("secrets=50 generation=1")
	for i := range old {
		if err := os.Truncate(fmt.Sprintf("%s/S%d", dir, i), 0); err != nil {
			t.Fatal(err)
		}
	}
	writeStoreFile(t, dir+"/OTHER", string(other[0]))
	sidecar.waitForLine("secrets=51 generation=2")
	checkCopies(t, sidecar, "while the files are incomplete", old, 1)
	checkCopies(t, sidecar, "while the files are incomplete, for the other secret", other, 1)
	for i := range current {
		if err := os.WriteFile(fmt.Sprintf("%s/S%d", dir, i), current[i], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(dir + "/OTHER"); err != nil {
		t.Fatal(err)
	}
	for sidecar.waitForLine("pushed the secrets"); !strings.Contains(sidecar.stderr.Text(), "secrets=50"); {
		sidecar.waitForLine("pushed the secrets")
	}
	checkCopies(t, sidecar, "after the files are complete, for the old secrets", old, 0)
	checkCopies(t, sidecar, "after the files are complete", current, 1)
}

// TestSidecarWarnsIfMemoryIsNotLocked starts a sidecar that has no permission to lock memory. The
// sidecar must log a warning and must push.
func TestSidecarWarnsIfMemoryIsNotLocked(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "running a sidecar as another uid requires root")
	h := newTestHost(t, 65533) // the limit for locked memory does not apply to root
	limited := []string{"-c", `ulimit -l 0; exec "$@"`, "sh", h.dir + "/keyhatch-sidecar", "run", "--socket", h.adminSocket()}
	sidecar := h.start("sh", append(limited, "--store", "dir:"+h.dir+"/store")...)
	sidecar.waitForLine("secrets are in memory that can be swapped out")
	sidecar.waitForLine("secrets=0 generation=1")
}

// TestMemoryScanFindsCopiesInNaiveReader checks that countCopies finds the secrets in the
// memory of a process that reads a directory without locked memory. If countCopies did not
// find them, TestSidecarKeepsSecretsOnlyInLockedMemory would prove nothing.
func TestMemoryScanFindsCopiesInNaiveReader(t *testing.T) {
	testenv.RequireMemoryAccess(t)
	values, dir := randomValues(100), t.TempDir()
	writeDirStore(t, dir, values)
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), "KEYHATCH_TEST_AS=naive")
	startProcess(t, cmd).waitForLine("ready <nil>")
	if arenas, elsewhere := countCopies(t, cmd.Process.Pid, values); arenas > 0 || elsewhere < len(values) {
		t.Errorf("countCopies found %d copies in arenas and %d elsewhere; want none in arenas and at least %d elsewhere", arenas, elsewhere, len(values))
	}
}

func randomValues(n int) [][]byte {
	values := make([][]byte, n)
	for i := range values {
		values[i] = []byte(tripwire + rand.Text())
	}
	return values
}

// countCopies counts the copies of the values in the readable memory of a process.
func countCopies(t *testing.T, pid int, values [][]byte) (arenas, elsewhere int) {
	t.Helper()
	isValue := map[string]bool{}
	for _, value := range values {
		isValue[string(value)] = true
	}
	size := len(values[0])
	for region := range testenv.ReadMemory(t, pid) {
		for at := 0; ; at++ {
			i := bytes.Index(region.Content[at:], []byte(tripwire))
			if i < 0 {
				break
			}
			if at += i; at+size > len(region.Content) || !isValue[string(region.Content[at:at+size])] {
				continue
			}
			if region.IsArena {
				arenas++
			} else {
				elsewhere++
			}
		}
	}
	return arenas, elsewhere
}
