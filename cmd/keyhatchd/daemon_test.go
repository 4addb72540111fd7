package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// A daemon is a keyhatchd that runs in its own process.
type daemon struct {
	dir     string // runtime directory
	audit   string // path of the audit log
	cmd     *exec.Cmd
	output  *outputRecorder
	waitErr error
	ended   chan struct{}
}

// startDaemon runs the test binary as keyhatchd until the test ends, and waits until the daemon
// serves. role is one of the values of KEYHATCH_TEST_AS in TestMain.
func startDaemon(t *testing.T, role, dir string, args ...string) *daemon {
	t.Helper()
	d := launchDaemon(t, role, dir, args...)
	d.waitForOutput(t, "serving")
	return d
}

func launchDaemon(t *testing.T, role, dir string, args ...string) *daemon {
	t.Helper()
	d := newDaemon(os.Args[0], dir, args...)
	d.cmd.Env = append(d.cmd.Env, "KEYHATCH_TEST_AS="+role)
	d.launch(t)
	return d
}

// newDaemon returns a daemon that is not running yet. The test can change d.cmd before it calls
// launch.
func newDaemon(program, dir string, args ...string) *daemon {
	d := &daemon{dir: dir, audit: filepath.Join(filepath.Dir(dir), "audit.log"), output: newOutputRecorder(), ended: make(chan struct{})}
	d.cmd = exec.Command(program, append([]string{"--runtime-dir", dir, "--projects-dir", "", "--audit", "file:" + d.audit}, args...)...)
	d.cmd.Env = os.Environ()
	return d
}

// launch starts the daemon. When the test ends, the daemon is killed.
func (d *daemon) launch(t *testing.T) {
	t.Helper()
	d.cmd.Stdout, d.cmd.Stderr = d.output, d.output
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.waitErr = d.cmd.Wait(); close(d.ended); d.output.close() }()
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		<-d.ended
		d.collectOutput()
	})
}

func (d *daemon) adminSocket() string { return filepath.Join(d.dir, "admin", "admin.sock") }

func (d *daemon) projectSocket(name string) string {
	return filepath.Join(d.dir, "projects", name, "broker.sock")
}

// waitForOutput waits until the daemon's output contains text.
func (d *daemon) waitForOutput(t *testing.T, text string) {
	t.Helper()
	if !d.output.waitFor(text) {
		t.Fatalf("the daemon ended and did not print %q:\n%s", text, d.output.String())
	}
}

// stop sends a signal, waits until the daemon ends, and returns the error of Wait.
func (d *daemon) stop(sig os.Signal) error {
	d.cmd.Process.Signal(sig)
	<-d.ended
	return d.waitErr
}

// collectOutput adds the daemon's output and its audit log to collected.
func (d *daemon) collectOutput() {
	audit, _ := os.ReadFile(d.audit)
	collectedMu.Lock()
	defer collectedMu.Unlock()
	collected.WriteString(d.output.String())
	collected.Write(audit)
}

// The variable collected contains the output and the audit logs of the daemons that launch
// started. After the last test, checkCollectedOutput searches collected for tripwires.
var (
	collectedMu sync.Mutex
	collected   bytes.Buffer
)

// tripwire is a part of most secret values in this package's tests, and of no other text.
const tripwire = "TRIPWIRE"

// checkCollectedOutput reports whether the variable collected contains no secret. It also returns
// false if collected contains output, but no audit log, because the search would then prove
// nothing.
func checkCollectedOutput() bool {
	if collected.Len() == 0 {
		return true // no test started a daemon, so there is no output to search
	}
	if i := bytes.Index(collected.Bytes(), []byte(tripwire)); i >= 0 {
		fmt.Fprintln(os.Stderr, "FAIL: a secret's value is in a log or in the audit log")
		return false
	}
	if !bytes.Contains(collected.Bytes(), []byte("broker.started")) {
		fmt.Fprintln(os.Stderr, "FAIL: the search for tripwires did not include an audit log")
		return false
	}
	return true
}

// newRuntimeDir returns the path of a runtime directory that does not exist yet. The path is
// short, because the path of a socket is limited to 107 bytes.
func newRuntimeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "run")
}

func dialAdmin(t *testing.T, d *daemon) *client.Admin {
	t.Helper()
	admin, err := client.DialAdmin(context.Background(), d.adminSocket())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	return admin
}

// sendRequest sends one request on a new connection and returns the answer without its
// newline.
func sendRequest(t *testing.T, socket, line string) string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, line); err != nil {
		t.Fatal(err)
	}
	response, err := bufio.NewReaderSize(conn, 1<<20).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return strings.TrimSuffix(response, "\n")
}

// eventually calls condition again and again, until condition returns true or the timeout
// is over. It returns false after the timeout.
func eventually(timeout time.Duration, condition func() bool) bool {
	for deadline := time.Now().Add(timeout); ; {
		if condition() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 2e6}, nil)
	}
}

const testManifest = "schema_version: 1\nproject: api\nsecrets:\n  A:\n  MISSING:\n"

func registerProject(t *testing.T, d *daemon) {
	t.Helper()
	text := testManifest
	if _, err := dialAdmin(t, d).Register(context.Background(), schema.RegisterRequest{
		Name: "api", ProjectPath: "/nowhere/api", Manifest: &text,
	}); err != nil {
		t.Fatal(err)
	}
}

func pushSecret(t *testing.T, d *daemon, value string) {
	t.Helper()
	line, err := wire.Encode(schema.PushRequest{
		Op: schema.OpPush, Secrets: map[schema.SecretName]schema.Value{"A": {Text: value}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dialAdmin(t, d).Push(context.Background(), line); err != nil {
		t.Fatal(err)
	}
}

func readFile(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}
