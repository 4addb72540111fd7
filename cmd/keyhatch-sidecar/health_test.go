package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"golang.org/x/sys/unix"
)

// TestHealthReportsStoppedSidecar stops a sidecar as Ctrl-Z does, and checks that health fails and
// that its hint contains the command that continues the sidecar.
func TestHealthReportsStoppedSidecar(t *testing.T) {
	h := newTestHost(t, 0)
	if err := os.WriteFile(h.dir+"/store/A", []byte(tripwire), 0o600); err != nil {
		t.Fatal(err)
	}
	p := h.startSidecar("--store", "dir:"+h.dir+"/store")
	p.waitForLine("pushed the secrets")
	health := func() (string, error) {
		output, err := h.command(h.dir+"/keyhatch-sidecar", "health", "--socket", h.adminSocket(), "--store", "dir:"+h.dir+"/store").CombinedOutput()
		return string(output), err
	}
	if output, err := health(); err != nil {
		t.Fatalf("error %v, output:\n%s", err, output)
	}
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo // wait until the kernel has stopped the process
	if err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, &info, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("run kill -CONT %d\n", p.cmd.Process.Pid)
	if output, err := health(); err == nil || !strings.Contains(output, "is stopped, so a change in the store has no effect\n") || !strings.Contains(output, want) {
		t.Errorf("with a stopped sidecar: error %v, output:\n%s", err, output)
	}
	// Health must also report the temporary file of a killed edit, which a stopped sidecar does not
	// remove.
	leftover := h.dir + "/store/.keyhatch-edit-1"
	if err := os.WriteFile(leftover, []byte(tripwire), 0o600); err != nil {
		t.Fatal(err)
	}
	want = leftover + "\nhint: to see what it contains, run ls -lAR '" + leftover + "'; if something is mounted there, unmount it; move other files away, and delete the rest\n"
	backup := h.dir + "/store/X.bak"
	if err := os.WriteFile(backup, []byte(tripwire), 0o600); err != nil {
		t.Fatal(err)
	}
	if output, _ := health(); !strings.Contains(output, "so the sidecar pushes it: "+backup+"\nhint: ") {
		t.Errorf("health does not report a backup, output:\n%s", output)
	}
	if output, _ := health(); !strings.Contains(output, want) {
		t.Errorf("after a killed edit: health does not print %q, output:\n%s", want, output)
	}
}

// TestStandardErrorOfCommandIsShownOnlyOnTerminal checks that the standard error of the command of
// an exec: store is shown on a terminal, and that it is in no other output, because such output
// can be a log.
func TestStandardErrorOfCommandIsShownOnlyOnTerminal(t *testing.T) {
	h := newTestHost(t, 0)
	args := []string{"--socket", h.adminSocket(), "--format", "dotenv", "--store",
		"exec:echo A=TRIPWIRE; echo no such key TRIPWIRE >&2; head -c 100000 /dev/zero | tr '\\0' x >&2; exit 3"}
	health := func() *exec.Cmd { return h.command(h.dir+"/keyhatch-sidecar", append([]string{"health"}, args...)...) }
	output, err := health().CombinedOutput()
	if text := string(output); err == nil || strings.Contains(text, "no such key") || strings.Contains(text, tripwire) ||
		!strings.Contains(text, "exit status 3\nhint: ") {
		t.Errorf("health without a terminal: error %v, output:\n%.2000s", err, text)
	}
	terminal := testenv.StartOnTerminal(t, health())
	terminal.Expect("no such key")
	terminal.Expect("exit status 3")
	if code := terminal.Wait(); code != 1 {
		t.Errorf("health on a terminal: exit code %d, want 1", code)
	}
	if n := len(terminal.Output()); n > 50000 {
		t.Errorf("health copied %d bytes to the terminal", n)
	}
	run := h.startSidecar(args[2:]...)
	run.waitForLine("the command of the exec: store failed: exit status 3\" hint=")
}

// TestHealthDoesNotPrintCommand checks that the hint of health does not contain the command of an exec:
// store, because a command can contain a secret, and because container engines store the output of health.
func TestHealthDoesNotPrintCommand(t *testing.T) {
	h := newTestHost(t, 0)
	output, err := h.command(h.dir+"/keyhatch-sidecar", "health", "--socket", h.adminSocket(), "--format", "dotenv",
		"--store", "exec:TOKEN=TRIPWIRE; echo A=b").CombinedOutput()
	if text := string(output); err == nil || strings.Contains(text, tripwire) || !strings.Contains(text, "\nhint: start the sidecar: ") {
		t.Errorf("error %v, output:\n%s", err, text)
	}
}
