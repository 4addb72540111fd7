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
)

// TestRedactStderrHidesValues checks that an error contains the standard error of a
// command, and no part of the command's standard output. A value must also be hidden if
// standard error contains only a part of the value, or the value without escapes.
func TestRedactStderrHidesValues(t *testing.T) {
	for _, c := range []struct{ name, stdout, stderr, wantShown, secret string }{
		{"no output", "", "no such key\n", "no such key", "-"},
		{"a harmless word", "A=TRIPWIRE\n", "no such key\n", "no such key", "-"},
		{"a whole value", "A=TRIPWIRE\n", "bad value TRIPWIRE\n", "is not shown", "TRIPWIRE"},
		{"the beginning of a value", "A=TRIPWIRE\n", "near TRIPW\n", "is not shown", "TRIPW"},
		{"the middle of a value", "A=TRIPWIRE\n", "near 'IPWIR...'\n", "is not shown", "IPWIR"},
		{"a value of separators", "A=\"x1,y2:z3=q4\"\n", "bad x1,y2:z3=q4\n", "is not shown", "x1,y2"},
		{"a short value", "A=abc\n", "bad abc\n", "is not shown", "abc"},
		{"a short value in quotes", `{"A": "abc"}`, "bad 'abc'\n", "is not shown", "abc"},
		{"a value printed with escapes", `{"A": "\u0054\u0052\u0049\u0050\u0057\u0049"}`, "bad TRIPWI\n", "is not shown", "TRIPWI"},
		{"an escaped value", `{"A": "T\"RIPWIRE"}`, "bad T\"RIPWIRE\n", "is not shown", "RIPWIRE"},
		{"a value and a harmless line", "A=TRIPWIRE\n", "TRIPWIRE\nplain\n", "plain", "TRIPWIRE"},
		{"a value that the limit cuts", "A=WXYZ\n", strings.Repeat("-", maxStderr-3) + "\nWX", "", "WX"},
	} {
		stderr := &cappedBuffer{max: maxStderr}
		stderr.Write([]byte(c.stderr))
		if c.name == "a value that the limit cuts" {
			stderr.Write([]byte("YZ\n"))
		}
		format := Dotenv
		if strings.HasPrefix(c.stdout, "{") {
			format = JSON
		}
		got := Exec{Format: format}.redactStderr([]byte(c.stdout), stderr)
		if !strings.Contains(got, c.wantShown) || strings.Contains(strings.ReplaceAll(got, "standard output", ""), c.secret) && c.secret != "-" {
			t.Errorf("standard error with %s: got %q; want it to contain %q and not %q", c.name, got, c.wantShown, c.secret)
		}
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
// writes to a watched file. If the file stays open, Exec.Read must run the command anyway,
// because a database can be open for writing all the time.
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
