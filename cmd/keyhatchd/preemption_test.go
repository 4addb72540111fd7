package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"golang.org/x/sys/unix"
)

// TestLoadLeavesNoFragmentsInMemory pushes large sets of secrets while several projects fetch
// secrets, and sends signals to all threads of the daemon. It then searches the daemon's memory
// outside the arenas, and must find no fragment of a secret. To check that the search works, the
// test first does the same with a daemon that has asynchronous preemption, and must find
// fragments there.
func TestLoadLeavesNoFragmentsInMemory(t *testing.T) {
	testenv.RequireMemoryAccess(t)
	set := newLargeSet(t)
	start := func(d *daemon) {
		d.launch(t)
		d.waitForOutput(t, "serving")
		for _, project := range loadedProjects {
			registerNames(t, d, project, set.count)
		}
	}

	control := newDaemon(os.Args[0], newRuntimeDir(t), "--request-rate", "0")
	control.cmd.Env = append(control.cmd.Env, "KEYHATCH_TEST_AS=keyhatchd-with-preemption")
	start(control)
	if strings.Contains(sendRequest(t, control.adminSocket(), `{"op":"status"}`), `"memory":"heap"`) {
		t.Skip("a build for the race detector stores secrets on the heap")
	}
	if !eventually(10*time.Second, func() bool {
		set.load(t, control, time.Second)
		return len(set.findFragments(t, control.cmd.Process.Pid)) > 0
	}) {
		t.Fatal("the search finds no fragment in a daemon with asynchronous preemption")
	}
	control.stop(unix.SIGTERM)

	program := filepath.Join(t.TempDir(), "keyhatchd")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := newDaemon(program, newRuntimeDir(t), "--request-rate", "0")
	d.cmd.Env = append(d.cmd.Env, "GODEBUG=asyncpreemptoff=0")
	start(d)
	for range 3 {
		var interrupter sync.WaitGroup
		interrupter.Go(func() {
			if err := interruptThreads(time.Now().Add(time.Second), d.cmd.Process.Pid); err != nil {
				t.Error(err)
			}
		})
		set.load(t, d, time.Second)
		interrupter.Wait()
		if found := set.findFragments(t, d.cmd.Process.Pid); len(found) > 0 {
			t.Fatalf("the memory outside the arenas contains %d fragments of secrets, for example %s", len(found), found[0])
		}
	}
}

// TestPreemptionIsOffHoweverStarted starts daemons with different environments, and with
// socket activation. Each daemon must ignore SIGURG, the signal with which the Go runtime
// preempts goroutines.
func TestPreemptionIsOffHoweverStarted(t *testing.T) {
	for _, environment := range []string{"GODEBUG=", "GODEBUG=asyncpreemptoff=0", "GODEBUG=madvdontneed=1"} {
		t.Run(environment, func(t *testing.T) {
			d := newDaemon(os.Args[0], newRuntimeDir(t))
			d.cmd.Env = append(d.cmd.Env, "KEYHATCH_TEST_AS=keyhatchd", environment)
			d.launch(t)
			d.waitForOutput(t, "serving")
			if !ignoresSignal(t, d.cmd.Process.Pid, unix.SIGURG) {
				t.Error("asynchronous preemption is on")
			}
		})
	}
	t.Run("socket activation", func(t *testing.T) {
		dir := newRuntimeDir(t)
		d := newDaemon(os.Args[0], dir)
		if err := os.MkdirAll(filepath.Dir(d.adminSocket()), 0o755); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", d.adminSocket())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		file, err := l.(*net.UnixListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		// The shell sets LISTEN_PID to its own process ID and then executes the daemon.
		wrapped := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, d.cmd.Args...)...)
		wrapped.Env = append(d.cmd.Env, "KEYHATCH_TEST_AS=keyhatchd", "LISTEN_FDS=1", "LISTEN_FDNAMES=admin")
		wrapped.ExtraFiles = []*os.File{file}
		d.cmd = wrapped
		d.launch(t)
		d.waitForOutput(t, "serving")
		if _, err := dialAdmin(t, d).Ping(context.Background()); err != nil {
			t.Error(err)
		}
		if !ignoresSignal(t, d.cmd.Process.Pid, unix.SIGURG) {
			t.Error("asynchronous preemption is on")
		}
	})
	t.Run("control", func(t *testing.T) {
		d := startDaemon(t, "keyhatchd-with-preemption", newRuntimeDir(t))
		if !eventually(5*time.Second, func() bool { return !ignoresSignal(t, d.cmd.Process.Pid, unix.SIGURG) }) {
			t.Error("ignoresSignal does not notice that asynchronous preemption is on")
		}
	})
}

// restorePreemption waits until main has turned asynchronous preemption off by ignoring SIGURG,
// and turns it on again. After signal.Notify, the Go runtime handles SIGURG, and preempts
// goroutines with this signal.
func restorePreemption() {
	if eventually(time.Minute, func() bool { return signal.Ignored(unix.SIGURG) }) {
		signal.Notify(make(chan os.Signal, 1), unix.SIGURG)
	}
}

// ignoresSignal reports whether a process ignores a signal (SigIgn in proc_pid_status(5)).
func ignoresSignal(t *testing.T, pid int, sig unix.Signal) bool {
	t.Helper()
	return readSignalMask(t, pid, "SigIgn")&(1<<(sig-1)) != 0
}

// readSignalMask returns a mask of signals from the status file of a process.
func readSignalMask(t *testing.T, pid int, field string) uint64 {
	t.Helper()
	_, after, _ := strings.Cut(readFile(fmt.Sprintf("/proc/%d/status", pid)), "\n"+field+":\t")
	line, _, _ := strings.Cut(after, "\n")
	mask, err := strconv.ParseUint(line, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return mask
}

// neededSignals are the signals for which the daemon has a handler. SIGHUP, SIGINT, and SIGTERM
// control the daemon. The Go runtime needs signal 33, and keeps its handler for SIGPROF although
// the daemon does not use this signal. The handlers of the other signals in this list end the
// daemon.
var neededSignals = []unix.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPROF, 33,
	unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSTKFLT, unix.SIGSYS,
}

// TestDaemonHandlesOnlyNeededSignals reads from /proc for which signals the daemon has a handler.
// These must be exactly neededSignals, because a handler that returns can leave pieces of secrets
// in memory (see secmem.Harden).
func TestDaemonHandlesOnlyNeededSignals(t *testing.T) {
	d := startDaemon(t, "keyhatchd", newRuntimeDir(t))
	handled := readSignalMask(t, d.cmd.Process.Pid, "SigCgt")
	for sig := unix.Signal(1); sig <= 64; sig++ {
		if got, want := handled&(1<<(sig-1)) != 0, slices.Contains(neededSignals, sig); got != want {
			t.Errorf("the daemon has a handler for signal %d (%v): got %v, want %v", int(sig), sig, got, want)
		}
	}
}

// interruptThreads repeatedly sends signals to all threads of the daemon, until the deadline. The
// daemon must ignore these signals.
func interruptThreads(deadline time.Time, pid int) error {
	for time.Now().Before(deadline) {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		for _, thread := range threads {
			tid, err := strconv.Atoi(thread.Name())
			if err != nil {
				return err
			}
			for _, sig := range []unix.Signal{unix.SIGWINCH, unix.SIGCHLD, unix.SIGURG, unix.SIGUSR1, unix.SIGPIPE, unix.SIGIO, 64} {
				if err := unix.Tgkill(pid, tid, sig); err != nil && err != unix.ESRCH {
					return err
				}
			}
		}
	}
	return nil
}

// fragmentSize is the number of bytes of the smallest fragment that findFragments reports.
// The smallest vector register has this size.
const fragmentSize = 16

// loadedProjects are the projects that fetch secrets in largeSet.load.
var loadedProjects = []string{"a", "b", "c"}

// A largeSet is a push request of almost the maximum size. It contains texts, binary secrets,
// and bundles with random content.
type largeSet struct {
	push  []byte // the push request
	count int    // number of secrets, whose names are S0, S1, ...

	bytes []byte           // the random texts of all secrets, and the decoded binary secrets
	index map[uint64]int32 // maps each sequence of 8 bytes to its position in the field bytes
}

func newLargeSet(t *testing.T) *largeSet {
	t.Helper()
	s := &largeSet{count: 15, index: map[uint64]int32{}}
	secrets, binaries := map[string]any{}, map[string]string{}
	for i := range s.count {
		random := make([]byte, 48<<10)
		rand.Read(random)
		text := base64.StdEncoding.EncodeToString(random)
		s.bytes = append(s.bytes, text...)
		switch name := fmt.Sprintf("S%d", i); i % 3 {
		case 0:
			secrets[name] = tripwire + text
		case 1:
			binaries[name] = text
			s.bytes = append(s.bytes, random...)
		case 2:
			secrets[name] = map[string]string{"user": tripwire, "password": text}
		}
	}
	var err error
	if s.push, err = json.Marshal(map[string]any{"op": "push-creds", "secrets": secrets, "secrets_b64": binaries}); err != nil {
		t.Fatal(err)
	}
	for i := range len(s.bytes) - 7 {
		s.index[binary.NativeEndian.Uint64(s.bytes[i:])] = int32(i)
	}
	return s
}

// load starts two clients that push the set, and two clients for each of loadedProjects, which
// fetch secrets. The clients run for the given time.
func (s *largeSet) load(t *testing.T, d *daemon, duration time.Duration) {
	t.Helper()
	if answer := sendRequest(t, d.adminSocket(), string(s.push)); !strings.HasPrefix(answer, `{"ok":true`) {
		t.Fatal(answer)
	}
	deadline := time.Now().Add(duration)
	var clients sync.WaitGroup
	repeat := func(socket string, request func(n int) []byte) {
		for range 2 {
			clients.Go(func() {
				err := sendUntil(deadline, socket, request)
				// On a busy machine, a client can be so slow that the broker has received several
				// new pushes before the client has read its answer. The broker then closes the
				// connection, and the client connects again.
				for err == io.EOF && socket != d.adminSocket() {
					err = sendUntil(deadline, socket, request)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	repeat(d.adminSocket(), func(int) []byte { return s.push })
	for _, project := range loadedProjects {
		repeat(d.projectSocket(project), func(n int) []byte {
			return fmt.Appendf(nil, `{"op":"get","name":"S%d"}`, n%s.count)
		})
	}
	clients.Wait()
}

// sendUntil sends requests on one connection until the deadline. It waits for each answer
// before it sends the next request.
func sendUntil(deadline time.Time, socket string, request func(n int) []byte) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	lines := bufio.NewReaderSize(conn, 1<<20)
	for n := 0; time.Now().Before(deadline); n++ {
		if _, err := conn.Write(append(request(n), '\n')); err != nil {
			return err
		}
		answer, err := lines.ReadSlice('\n')
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(answer, []byte(`{"ok":true`)) {
			return fmt.Errorf("%s", answer)
		}
	}
	return nil
}

// findFragments searches the memory of a process outside the arenas for parts of the set
// that have at least fragmentSize bytes. It returns a description of each part that it finds.
func (s *largeSet) findFragments(t *testing.T, pid int) (found []string) {
	t.Helper()
	for region := range testenv.ReadMemory(t, pid) {
		if region.IsArena {
			continue
		}
		memory := region.Content
		// Look only at addresses that are multiples of 8. Each fragment of 16 bytes contains 8
		// bytes that begin at such an address.
		for at := 0; at+8 <= len(memory); at += 8 {
			i, ok := s.index[binary.NativeEndian.Uint64(memory[at:])]
			if !ok {
				continue
			}
			before := commonSuffix(memory[:at], s.bytes[:i])
			after := commonPrefix(memory[at:], s.bytes[i:])
			if before+after >= fragmentSize {
				found = append(found, fmt.Sprintf("%d bytes at %#x", before+after, region.Start+uint64(at-before)))
				at += (after - 1) &^ 7
			}
		}
	}
	return found
}

func commonPrefix(a, b []byte) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

func commonSuffix(a, b []byte) (n int) {
	for n < min(len(a), len(b)) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return n
}
