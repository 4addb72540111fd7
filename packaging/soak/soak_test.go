package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/proc"
	"github.com/keyhatch/keyhatch/schema"
)

// TestTripwireIsFound checks that searchFiles finds a text in a file, also at the boundary of
// two blocks, and in the name of a file, but not in the store.
func TestTripwireIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		path    string
		content string
		found   bool
	}{
		"content":  {"log/file", "a " + tripwire, true},
		"boundary": {"log/file", strings.Repeat("x", 1<<20-5) + tripwire, true},
		"name":     {"log/" + tripwire, "", true},
		"store":    {"store/file", tripwire, false},
		"clean":    {"log/file", tripwire[1:], false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, c.path)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := searchFiles(dir, filepath.Join(dir, "store"), tripwire); (err != nil) != c.found {
				t.Errorf("searchFiles returned %v, want an error: %v", err, c.found)
			}
		})
	}
}

// TestBadAuditLineIsFound checks that checkAuditLog accepts only whole events without the name
// or the value of a secret.
func TestBadAuditLineIsFound(t *testing.T) {
	const event = `{"time":"2026-01-01T00:00:00Z","event":"secrets.fetched"}`
	for name, c := range map[string]struct {
		log string
		ok  bool
	}{
		"good":          {event + "\n" + event + "\n", true},
		"torn":          {event[:20] + "\n" + event + "\n", false},
		"joined":        {event[:20] + event + "\n", false},
		"no end":        {event + "\n" + event, false},
		"another value": {"{}\n", false},
		"name":          {strings.Replace(event, "fetched", nameTripwire, 1) + "\n", false},
		"value":         {strings.Replace(event, "fetched", tripwire, 1) + "\n", false},
	} {
		path := filepath.Join(t.TempDir(), "audit.log")
		if err := os.WriteFile(path, []byte(c.log), 0o600); err != nil {
			t.Fatal(err)
		}
		if events, err := checkAuditLog(path); (err == nil) != c.ok || c.ok && events != 2 {
			t.Errorf("%s: checkAuditLog returned %d events and %v, want success: %v", name, events, err, c.ok)
		}
	}
}

// TestWrongValueIsFound checks that secrets.check refuses a partial value, the value of another
// secret, an old value, and a value that was never written.
func TestWrongValueIsFound(t *testing.T) {
	s := newSecrets(t.TempDir())
	a, b := secretName(1), secretName(2)
	first, second, other := s.next(a), s.next(a), s.next(b)
	never := strings.Replace(second[:strings.LastIndexByte(second, ':')], ":2:", ":3:", 1)
	for name, c := range map[string]struct {
		value   string
		atLeast int
		ok      bool
	}{
		"newest":  {second, 2, true},
		"earlier": {first, 1, true},
		"old":     {first, 2, false},
		"partial": {second[:len(second)-1], 0, false},
		"empty":   {"", 0, false},
		"other":   {other, 0, false},
		"never":   {never + ":" + checksum(never), 0, false},
	} {
		if err := s.check(a, c.value, map[schema.SecretName]int{a: c.atLeast}); (err == nil) != c.ok {
			t.Errorf("%s: check returned %v, want success: %v", name, err, c.ok)
		}
	}
}

// TestLeakIsFound checks that usage.exceeds returns an error for each kind of resource.
func TestLeakIsFound(t *testing.T) {
	before := usage{proc.Usage{Descriptors: 10, Threads: 5, Kilobytes: 1000}, proc.Usage{Descriptors: 10, Threads: 5, Kilobytes: 1000}, []string{"a"}, []string{"b"}}
	for name, c := range map[string]struct {
		change func(*usage)
		ok     bool
	}{
		"same":                 {func(*usage) {}, true},
		"less":                 {func(u *usage) { u.broker = proc.Usage{Descriptors: 9, Threads: 4, Kilobytes: 900} }, true},
		"some threads":         {func(u *usage) { u.broker.Threads += extraThreads }, true},
		"threads":              {func(u *usage) { u.broker.Threads += extraThreads + 1 }, false},
		"broker descriptors":   {func(u *usage) { u.broker.Descriptors++ }, false},
		"sidecar descriptors":  {func(u *usage) { u.sidecar.Descriptors++ }, false},
		"memory":               {func(u *usage) { u.sidecar.Kilobytes += extraKilobytes + 1 }, false},
		"stored descriptor":    {func(u *usage) { u.stored = []string{"a", "a"} }, false},
		"file":                 {func(u *usage) { u.files = []string{"b", "c"} }, false},
		"missing project file": {func(u *usage) { u.files = nil }, false},
	} {
		now := before
		c.change(&now)
		if err := now.exceeds(before); (err == nil) != c.ok {
			t.Errorf("%s: exceeds returned %v, want success: %v", name, err, c.ok)
		}
	}
}

// TestGoroutinesAreCounted checks that goroutinesIn counts goroutines, but not those of the Go
// runtime.
func TestGoroutinesAreCounted(t *testing.T) {
	const output = "SIGABRT: abort\n\ngoroutine 0 [idle]:\na()\n\ngoroutine 1 [select]:\nb()\n\n" +
		"goroutine 7 [GC worker (idle)]:\nc()\ncreated by runtime.gcBgMarkStartWorkers in goroutine 1\n\n" +
		"goroutine 8 [select]:\nd()\ncreated by main.run in goroutine 1\n\nrax 0x0\n"
	if count := goroutinesIn(output); count != 3 {
		t.Errorf("goroutinesIn returned %d, want 3", count)
	}
}

// TestServiceThatEndsIsAProblem checks that a service reports a problem if its process ends by
// itself or fails after SIGTERM, but not if the test kills the process.
func TestServiceThatEndsIsAProblem(t *testing.T) {
	for name, c := range map[string]struct {
		command string
		kill    bool
		problem bool
	}{
		"ends by itself":         {"exit 0", false, true},
		"is killed":              {"exec sleep 60", true, false},
		"fails after SIGTERM":    {"trap 'exit 1' TERM; echo; while :; do sleep 0.01; done", false, true},
		"succeeds after SIGTERM": {"trap 'exit 0' TERM; echo; while :; do sleep 0.01; done", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			found := &problems{}
			started := make(chan struct{}, 100)
			s := &service{name: "sh", problems: found, wait: (*exec.Cmd).Wait, ended: make(chan struct{})}
			s.command = func() *exec.Cmd { return exec.Command("sh", "-c", c.command) }
			s.start = func(cmd *exec.Cmd) error {
				defer func() { started <- struct{}{} }()
				if !strings.HasPrefix(c.command, "trap") {
					return cmd.Start()
				}
				out, err := cmd.StdoutPipe()
				if err == nil {
					err = cmd.Start()
				}
				if err == nil {
					_, err = out.Read(make([]byte, 1)) // wait for the output of echo: then the shell has set its trap
				}
				return err
			}
			go s.run() // this goroutine ends when the service has stopped
			<-started
			switch {
			case c.kill:
				if !s.end(syscall.SIGKILL) {
					t.Error("the service does not run")
				}
				<-started
			case c.command == "exit 0":
				<-started
			default:
				s.end(syscall.SIGTERM)
			}
			if count := found.total(); (count > 0) != c.problem {
				t.Errorf("there are %d problems, want problems: %v", count, c.problem)
			}
			s.mu.Lock()
			s.stopping = true
			s.mu.Unlock()
			s.end(syscall.SIGKILL)
			<-s.ended
		})
	}
}

// TestOrphanIsFound starts a process that loses its parent. processes.orphans must return the
// process while it runs, and must not return the process after it has ended.
func TestOrphanIsFound(t *testing.T) {
	p, err := newProcesses()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	// The shell ends at once. The program cat ends when the pipe is closed.
	c := exec.Command("sh", "-c", "cat <&3 >/dev/null & exit")
	c.ExtraFiles = []*os.File{read}
	if err := p.run(c); err != nil {
		t.Fatal(err)
	}
	if orphans := p.orphans(); len(orphans) != 1 {
		t.Errorf("the orphans are %q, want one", orphans)
	}
	write.Close()
	if err := waitFor(10*time.Second, func() error {
		if orphans := p.orphans(); len(orphans) > 0 {
			return os.ErrExist
		}
		return nil
	}); err != nil {
		t.Error("the orphan is not released after its end")
	}
}
