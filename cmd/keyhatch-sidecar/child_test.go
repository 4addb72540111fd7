package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"golang.org/x/sys/unix"
)

// TestSidecarSurvivesFailureOfChild kills the child process that reads the store. The sidecar
// must log the reason, and must read the store again after the store has changed.
func TestSidecarSurvivesFailureOfChild(t *testing.T) {
	h := newTestHost(t, 0)
	command := "if [ -e " + h.dir + "/store/ok ]; then echo A=x; else kill -9 $PPID; fi"
	sidecar := h.startSidecar("--store", "exec:"+command, "--format", "dotenv", "--watch", h.dir+"/store")
	sidecar.waitForLine("the process that reads the store has failed: signal: killed")
	writeStoreFile(t, h.dir+"/store/ok", "")
	sidecar.waitForLine("secrets=1 generation=1")
}

// TestSidecarReadsStoreAfterItsProgramIsDeleted deletes the program of a running sidecar, as
// an upgrade does. The sidecar must still read the store.
func TestSidecarReadsStoreAfterItsProgramIsDeleted(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "running a sidecar as another uid requires root")
	h := newTestHost(t, 65533) // without root, an undumpable process cannot open its own files in /proc
	path := h.dir + "/store/.env"
	writeStoreFile(t, path, "A=x")
	h.giveToUID("store/.env")
	sidecar := h.startSidecar("--store", "file:"+path)
	sidecar.waitForLine("secrets=1 generation=1")
	if err := os.Remove(h.dir + "/keyhatch-sidecar"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("A=x\nB=x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sidecar.waitForLine("secrets=2 generation=2")
}

// startBlockedCommand starts a sidecar whose store is a command that does not end. It returns the process
// ID of the command.
func startBlockedCommand(h *testHost) (sidecar *process, command int) {
	h.t.Helper()
	pidFile := filepath.Join(h.dir, "pid")
	if err := unix.Mkfifo(pidFile, 0o600); err != nil {
		h.t.Fatal(err)
	}
	sidecar = h.startSidecar("--store", "exec:echo $$ >"+pidFile+"; exec sleep 600", "--format", "dotenv")
	text, err := os.ReadFile(pidFile) // waits until the command has written its process ID
	if err != nil {
		h.t.Fatal(err)
	}
	command, err = strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		h.t.Fatal(err)
	}
	return sidecar, command
}

// statFields returns the state of a process and the process ID of its parent, or "Z" if the process has
// ended.
func statFields(pid int) (state, parent string) {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 {
		return "Z", ""
	}
	return fields[0], fields[1]
}

// parentOf returns the process ID of the parent of a process.
func parentOf(t *testing.T, pid int) int {
	t.Helper()
	_, parent := statFields(pid)
	id, err := strconv.Atoi(parent)
	if err != nil || id < 2 {
		t.Fatalf("process %d has the parent %q", pid, parent)
	}
	return id
}

// TestStopEndsCommandOfStore stops a sidecar while the command of its store runs. The command
// must have ended when the sidecar exits, and the sidecar must log no error.
func TestStopEndsCommandOfStore(t *testing.T) {
	sidecar, command := startBlockedCommand(newTestHost(t, 0))
	if err := sidecar.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for sidecar.stderr.Scan() {
		if strings.Contains(sidecar.stderr.Text(), "level=ERROR") {
			t.Errorf("the sidecar logged an error: %s", sidecar.stderr.Text())
		}
	}
	if err := sidecar.cmd.Wait(); err != nil {
		t.Errorf("the sidecar ended with the error %v", err)
	}
	if state, _ := statFields(command); state != "Z" {
		t.Errorf("the command still runs after the sidecar has ended: %s", state)
	}
}

// TestKilledProcessEndsCommandOfStore kills the process that reads the store, or the sidecar, with
// SIGKILL while the command of the store runs. The command must end.
func TestKilledProcessEndsCommandOfStore(t *testing.T) {
	for _, victim := range []string{"child", "sidecar"} {
		t.Run(victim, func(t *testing.T) {
			sidecar, command := startBlockedCommand(newTestHost(t, 0))
			pid := parentOf(t, command)
			if victim == "sidecar" {
				pid = sidecar.cmd.Process.Pid
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(time.Millisecond) {
				if state, _ := statFields(command); state == "Z" {
					break
				}
				if time.Now().After(deadline) {
					unix.Kill(command, unix.SIGKILL)
					t.Fatal("the command still runs")
				}
			}
		})
	}
}

// TestSidecarStopsWhileChildIsStopped sends SIGSTOP to the process that reads the store. The
// sidecar must exit after SIGTERM.
func TestSidecarStopsWhileChildIsStopped(t *testing.T) {
	sidecar, command := startBlockedCommand(newTestHost(t, 0))
	if err := unix.Kill(parentOf(t, command), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := sidecar.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(30*time.Second, func() { sidecar.cmd.Process.Kill() }).Stop()
	if err := sidecar.cmd.Wait(); err != nil {
		t.Errorf("the sidecar ended with the error %v", err)
	}
}

// TestSignalOfBrokenLeaseIsHarmless sends SIGIO to the sidecar and to the process that reads the
// store. The kernel sends this signal if a program opens a file while the reading process has a
// lease for the file. By default, SIGIO ends a process.
func TestSignalOfBrokenLeaseIsHarmless(t *testing.T) {
	h := newTestHost(t, 0)
	path := h.dir + "/store/source"
	writeStoreFile(t, path, "A=x\n")
	// The parent process of the command is the process that reads the store.
	sidecar := h.startSidecar("--store", "exec:kill -IO $PPID && cat "+path, "--format", "dotenv", "--watch", path)
	sidecar.waitForLine("secrets=1 generation=1")
	if err := sidecar.cmd.Process.Signal(unix.SIGIO); err != nil {
		t.Fatal(err)
	}
	writeStoreFile(t, path, "A=x\nB=x\n")
	sidecar.waitForLine("secrets=2 generation=2")
}
