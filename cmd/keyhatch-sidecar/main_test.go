package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// tripwire is a text in the secrets, so that a test can find the secrets in an output or in memory.
const tripwire = "TRIPWIRE"

// TestMain runs the tests. If KEYHATCH_TEST_AS contains the name of another program, TestMain
// runs this program instead.
func TestMain(m *testing.M) {
	switch os.Getenv("KEYHATCH_TEST_AS") {
	case "":
		os.Exit(m.Run())
	case "program-without-memfd-secret":
		runProgram(testenv.ForbidMemfdSecret())
	case "program-without-memfd":
		runProgram(testenv.ForbidMemfd())
	case "attacker":
		openInputOfChildren(os.Args[1])
	case "naive":
		readNaively(os.Args[1])
	}
}

// runProgram replaces this process with the program in the arguments, unless err is an error.
func runProgram(err error) {
	os.Unsetenv("KEYHATCH_TEST_AS")
	if err == nil {
		err = syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// readNaively reads a directory and encodes the push in one process, so copies of the secrets
// remain in the memory of the process. It then waits until standard input ends.
func readNaively(dir string) {
	reading, err := store.Dir{Path: dir}.Read(context.Background(), nil)
	if err == nil {
		_, err = reading.Set.EncodePush()
	}
	fmt.Fprintln(os.Stderr, "ready", err)
	io.Copy(io.Discard, os.Stdin)
}

// A testHost has the programs keyhatchd and keyhatch-sidecar, a running keyhatchd, and an
// empty directory for a store. If uid is not 0, both programs run with this uid.
type testHost struct {
	t   *testing.T
	dir string
	uid uint32
}

func newTestHost(t *testing.T, uid uint32) *testHost {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh") // short, because a socket path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &testHost{t, dir, uid}
	if output, err := exec.Command("go", "build", "-o", dir, ".", "../keyhatchd").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	if err := os.Mkdir(filepath.Join(dir, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	if uid != 0 {
		h.giveToUID("", "store")
	}
	h.start(filepath.Join(dir, "keyhatchd"), "--runtime-dir", dir+"/run", "--projects-dir", "", "--audit", "file:"+dir+"/audit.log").waitForLine("serving")
	return h
}

// giveToUID makes h.uid the owner of paths, which are relative to h.dir.
func (h *testHost) giveToUID(paths ...string) {
	h.t.Helper()
	for _, path := range paths {
		if err := os.Chown(filepath.Join(h.dir, path), int(h.uid), int(h.uid)); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *testHost) adminSocket() string { return h.dir + "/run/admin/admin.sock" }

// startSidecar starts a sidecar. The flags select its store.
func (h *testHost) startSidecar(storeFlags ...string) *process {
	h.t.Helper()
	args := append([]string{"run", "--socket", h.adminSocket()}, storeFlags...)
	return h.start(filepath.Join(h.dir, "keyhatch-sidecar"), args...)
}

// A process is a program that runs until the test ends.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr *bufio.Scanner
}

func (h *testHost) start(name string, args ...string) *process {
	h.t.Helper()
	return startProcess(h.t, h.command(name, args...))
}

// command returns a command that runs as the user h.uid.
func (h *testHost) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	if h.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: h.uid, Gid: h.uid}}
	}
	return cmd
}

func startProcess(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &process{t, cmd, bufio.NewScanner(stderr)}
}

// waitForLine reads the standard error of the process, up to and including the next line that
// contains text. If the line does not arrive, waitForLine kills the process after a time.
func (p *process) waitForLine(text string) (before string) {
	p.t.Helper()
	defer time.AfterFunc(30*time.Second, func() { p.cmd.Process.Kill() }).Stop()
	var output strings.Builder
	for p.stderr.Scan() {
		if strings.Contains(p.stderr.Text(), text) {
			return output.String()
		}
		fmt.Fprintln(&output, p.stderr.Text())
	}
	p.t.Fatalf("the process ended and did not print %q:\n%s", text, output.String())
	return ""
}
