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
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// A daemon is a keyhatchd in a process of its own.
type daemon struct {
	dir    string // runtime directory
	audit  string // file
	cmd    *exec.Cmd
	output *output
	waited error
	ended  chan struct{}
}

// start runs keyhatchd as the test binary in the given guise, until the test
// ends, and waits for it to serve.
func start(t *testing.T, guise, dir string, args ...string) *daemon {
	t.Helper()
	d := launch(t, guise, dir, args...)
	d.await(t, "serving")
	return d
}

func launch(t *testing.T, guise, dir string, args ...string) *daemon {
	t.Helper()
	d := &daemon{dir: dir, audit: filepath.Join(filepath.Dir(dir), "audit.log"), output: newOutput(), ended: make(chan struct{})}
	d.cmd = exec.Command(os.Args[0], append([]string{"--runtime-dir", dir, "--audit", "file:" + d.audit}, args...)...)
	d.cmd.Env = append(os.Environ(), "KEYHATCH_TEST_AS="+guise)
	d.cmd.Stdout, d.cmd.Stderr = d.output, d.output
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.waited = d.cmd.Wait(); close(d.ended); d.output.end() }()
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		<-d.ended
		d.keep()
	})
	return d
}

func (d *daemon) admin() string { return filepath.Join(d.dir, "admin", "admin.sock") }

func (d *daemon) project(name string) string {
	return filepath.Join(d.dir, "projects", name, "broker.sock")
}

// await waits for a line of the daemon's output that holds text.
func (d *daemon) await(t *testing.T, text string) {
	t.Helper()
	if !d.output.await(text) {
		t.Fatalf("the daemon ended and never said %q:\n%s", text, d.output.String())
	}
}

// stop sends a signal and returns how the daemon ended.
func (d *daemon) stop(sig os.Signal) error {
	d.cmd.Process.Signal(sig)
	<-d.ended
	return d.waited
}

// keep collects what a daemon wrote: its output, its audit log, its command
// line is the test's own.
func (d *daemon) keep() {
	audit, _ := os.ReadFile(d.audit)
	wroteMu.Lock()
	defer wroteMu.Unlock()
	wrote.WriteString(d.output.String())
	wrote.Write(audit)
}

// Output of all daemons of this run, searched for tripwires when it is over.
var (
	wroteMu sync.Mutex
	wrote   bytes.Buffer
)

// tripwire is in every secret value of this package's tests, and in nothing
// else.
const tripwire = "TRIPWIRE"

func tripwiresHold() bool {
	if wrote.Len() == 0 {
		return true // a run of selected tests that started no daemon
	}
	if i := bytes.Index(wrote.Bytes(), []byte(tripwire)); i >= 0 {
		fmt.Fprintln(os.Stderr, "FAIL: a secret's value is in a log or in the audit log")
		return false
	}
	if !bytes.Contains(wrote.Bytes(), []byte("broker.started")) {
		fmt.Fprintln(os.Stderr, "FAIL: the search for tripwires looked at no audit log")
		return false
	}
	return true
}

// dirFor is a short runtime directory: a socket's path has room for 107 bytes.
func dirFor(t *testing.T) string {
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
	admin, err := client.DialAdmin(context.Background(), d.admin())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	return admin
}

// ask sends one line and returns one.
func ask(t *testing.T, socket, line string) string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, line); err != nil {
		t.Fatal(err)
	}
	answer, err := bufio.NewReaderSize(conn, 1<<20).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return strings.TrimSuffix(answer, "\n")
}

// eventually waits until ok, for at most limit.
func eventually(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); ; {
		if ok() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 2e6}, nil)
	}
}

// need skips a test that this machine cannot run, with the reason; in CI that
// is a failure.
func need(t *testing.T, have bool, reason string) {
	t.Helper()
	if have {
		return
	}
	if os.Getenv("KEYHATCH_TEST_ALL") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

const manifestText = "schema_version: 1\nproject: api\nsecrets:\n  A:\n  MISSING:\n"

func register(t *testing.T, d *daemon) {
	t.Helper()
	text := manifestText
	if _, err := dialAdmin(t, d).Register(context.Background(), schema.RegisterRequest{
		Name: "api", ProjectPath: "/nowhere/api", Manifest: &text,
	}); err != nil {
		t.Fatal(err)
	}
}

func push(t *testing.T, d *daemon, value string) {
	t.Helper()
	if _, err := dialAdmin(t, d).Push(context.Background(), schema.PushRequest{
		Secrets: map[schema.SecretName]schema.Value{"A": {Text: value}},
	}); err != nil {
		t.Fatal(err)
	}
}

func readFile(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}
