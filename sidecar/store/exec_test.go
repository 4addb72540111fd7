package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// TestExecErrorContainsNoText checks that an error does not contain the command or a value in
// its output, because each of them can contain a secret.
func TestExecErrorContainsNoText(t *testing.T) {
	for command, want := range map[string]string{
		"echo A=TRIPWIRE; echo TRIPWIRE >&2; exit 3":       "the command of the exec: store failed: exit status 3",
		"echo TRIPWIRE; echo TRIPWIRE >&2":                 "the output of the command of the exec: store is invalid: line 1: expected NAME=value",
		"echo TRIPWIRE >&2; exec sleep 600; echo TRIPWIRE": "the command of the exec: store failed: timed out after 300ms",
	} {
		_, err := Exec{Command: command, Format: Dotenv, Timeout: 300 * time.Millisecond}.Read(context.Background(), nil)
		if err == nil || err.Error() != want {
			t.Errorf("got the error %v; want %q", err, want)
		}
	}
}

// TestPipefailDetectsFailedCommand runs a pipe whose first command fails. As RECIPES.md describes, Read
// must return an error only if the pipe runs with pipefail.
func TestPipefailDetectsFailedCommand(t *testing.T) {
	testenv.RequireTool(t, "bash")
	const pipe = "(echo A=1; exit 3) | cat"
	e := Exec{Command: pipe, Format: Dotenv, Timeout: 20 * time.Second}
	mustRead(t, e, nil, "1", false)
	e.Command = "bash -o pipefail -c '" + pipe + "'"
	if _, err := e.Read(context.Background(), nil); !errors.Is(err, ErrCommand) {
		t.Errorf("got the error %v; want ErrCommand", err)
	}
}

// TestExecKillsBackgroundProcesses checks that Exec.Read kills a background process that
// the command started and that still runs after the command has ended. If the background
// process does not have the output open, the read succeeds.
func TestExecKillsBackgroundProcesses(t *testing.T) {
	for _, c := range []struct{ name, command, wantError string }{
		{"a background process with the output", "sleep 600", "background"},
		{"a background process with other files", "sleep 600 >/dev/null 2>&1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			pidFile := filepath.Join(t.TempDir(), "pid")
			e := Exec{Command: c.command + " & echo $! >" + pidFile + "; echo A=TRIPWIRE", Format: Dotenv, Timeout: 20 * time.Second}
			_, err := e.Read(context.Background(), nil)
			if (err == nil) != (c.wantError == "") || err != nil && !strings.Contains(err.Error(), c.wantError) {
				t.Errorf("got the error %v; want %q", err, c.wantError)
			}
			waitUntilGone(t, pidFile)
		})
	}
}

// waitUntilGone waits until the process whose ID is in pidFile has ended.
func waitUntilGone(t *testing.T, pidFile string) {
	t.Helper()
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	isGone := func() bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return syscall.Kill(pid, 0) != nil || err != nil || strings.Contains(string(stat), ") Z ")
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(15 * time.Second); !isGone(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("the background process is still running")
		}
	}
}

// TestExecWaitsForWatchedFile checks that Exec.Read does not run the command while a process
// has a watched file open for writing. If the file stays open for a longer time, Exec.Read must
// run the command anyway, because a database can be open for writing all the time.
func TestExecWaitsForWatchedFile(t *testing.T) {
	dir := t.TempDir()
	for _, watched := range []string{dir, dir + "/source"} {
		f, err := os.Create(dir + "/source")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.WriteString("A=TRIP")
		e := Exec{Command: "cat " + dir + "/source", Format: Dotenv, WatchPaths: []string{watched}, Timeout: 20 * time.Second}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		if r, err := e.Read(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with the watched path %s, Read returned %v and the error %v while the file was open", watched, r, err)
		}
		cancel()
		mustRead(t, e, nil, "TRIP", false)
		f.WriteString("WIRE\n")
		f.Close()
		mustRead(t, e, nil, "TRIPWIRE", false)
	}
}
