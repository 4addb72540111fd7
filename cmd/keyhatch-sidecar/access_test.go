package main

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// TestSameUIDCannotReadSidecar checks that a process of the same uid can read neither the
// memory of the sidecar nor the memory of the process that reads the store. To check the test
// itself, it reads the files of an unprotected process.
func TestSameUIDCannotReadSidecar(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "running a sidecar as another uid requires root")
	h := newTestHost(t, 65533)
	// The parent process of the command is the process that reads the store.
	command := "echo DONE=1; for file in mem maps environ; do if (: </proc/$PPID/$file) 2>/dev/null; then echo READS_$file=1; fi; done"
	sidecar := h.startSidecar("--store", "exec:"+command, "--format", "dotenv")
	sidecar.waitForLine("secrets=1 generation=1")
	control := h.start("sleep", "600")
	for _, file := range []string{"mem", "maps", "environ"} {
		if err := h.read(control, file); err != nil {
			t.Errorf("cannot read /proc/PID/%s of an unprotected process: %v", file, err)
		}
		if err := h.read(sidecar, file); err == nil {
			t.Errorf("a process with the same uid can read /proc/PID/%s of the sidecar", file)
		}
	}
}

// read opens the file /proc/PID/file of a process, as the user h.uid.
func (h *testHost) read(p *process, file string) error {
	return h.command("sh", "-c", fmt.Sprintf("exec </proc/%d/%s", p.cmd.Process.Pid, file)).Run()
}

// TestCommandHasDefaultSignalActions checks that the command of an exec: store does not
// inherit the signals that the sidecar ignores. Otherwise, for example, `yes | head` would
// print an error.
func TestCommandHasDefaultSignalActions(t *testing.T) {
	h := newTestHost(t, 0)
	want, err := exec.Command("grep", "SigIgn", "/proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	h.startSidecar("--store", "exec:grep SigIgn /proc/self/status >"+h.dir+"/ignored; echo A=x", "--format", "dotenv").waitForLine("secrets=1 generation=1")
	got, err := os.ReadFile(h.dir + "/ignored")
	if err != nil || string(got) != string(want) {
		t.Errorf("the signals that the command ignores are %q, error %v; want %q", got, err, want)
	}
}
