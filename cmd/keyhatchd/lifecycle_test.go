package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSecondDaemonExits starts two daemons at the same time, and repeats this several times.
// Exactly one daemon must serve. The other daemon must report the reason and exit with 1.
func TestSecondDaemonExits(t *testing.T) {
	for range 5 {
		dir := newRuntimeDir(t)
		a, b := launchDaemon(t, "keyhatchd", dir), launchDaemon(t, "keyhatchd", dir)
		var loser, winner *daemon
		select {
		case <-a.ended:
			loser, winner = a, b
		case <-b.ended:
			loser, winner = b, a
		}
		winner.waitForOutput(t, "serving")
		if code := loser.cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("the second daemon exits with %d, want 1", code)
		}
		for _, want := range []string{"another keyhatchd is already running", "hint: "} {
			if !strings.Contains(loser.output.String(), want) {
				t.Errorf("the second daemon does not print %q:\n%s", want, loser.output.String())
			}
		}
		if _, err := dialAdmin(t, winner).Ping(context.Background()); err != nil {
			t.Error(err)
		}
		if err := winner.stop(unix.SIGTERM); err != nil {
			t.Error(err)
		}
	}
}

// TestStaleSocketIsReplaced kills a daemon and starts another daemon, which must replace the
// socket file of the killed daemon. The daemon must not replace the project's directory, because
// a container may mount this directory.
func TestStaleSocketIsReplaced(t *testing.T) {
	dir := newRuntimeDir(t)
	d := startDaemon(t, "keyhatchd", dir)
	registerProject(t, d)
	before, err := os.Stat(filepath.Dir(d.projectSocket("api")))
	if err != nil {
		t.Fatal(err)
	}
	d.stop(unix.SIGKILL)
	if _, err := os.Stat(d.adminSocket()); err != nil {
		t.Fatal("the socket file of the killed daemon does not exist")
	}
	d = startDaemon(t, "keyhatchd", dir)
	if _, err := dialAdmin(t, d).Ping(context.Background()); err != nil {
		t.Error(err)
	}
	registerProject(t, d)
	after, err := os.Stat(filepath.Dir(d.projectSocket("api")))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the project's directory was replaced: %v", err)
	}
}

// TestLiveSocketIsNotReplaced starts a daemon while another listener uses the path of the admin
// socket. Like the listener of a service manager, this listener does not hold the lock of the
// runtime directory. The daemon must exit and must not replace the socket.
func TestLiveSocketIsNotReplaced(t *testing.T) {
	dir := newRuntimeDir(t)
	d := launchDaemon(t, "keyhatchd", dir)
	d.waitForOutput(t, "serving")
	d.stop(unix.SIGTERM)
	if err := os.Remove(d.adminSocket()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", d.adminSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d = launchDaemon(t, "keyhatchd", dir)
	<-d.ended
	if !strings.Contains(d.output.String(), "another process listens on") || d.cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("the daemon exits with %d and prints:\n%s", d.cmd.ProcessState.ExitCode(), d.output.String())
	}
	if conn, err := net.Dial("unix", d.adminSocket()); err != nil {
		t.Errorf("clients can no longer connect to the other listener: %v", err)
	} else {
		conn.Close()
	}
}

// TestStopAnswersPendingRequests stops a daemon that has not yet read a client's request. The
// daemon must answer the request and exit with 0. It must not remove its socket files, because
// the next daemon uses or replaces them.
func TestStopAnswersPendingRequests(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		d := startDaemon(t, "keyhatchd", newRuntimeDir(t))
		registerProject(t, d)
		pushSecret(t, d, tripwire)
		conn, err := net.Dial("unix", d.projectSocket("api"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintln(conn, `{"op":"ping"}`)
		lines := bufio.NewReader(conn)
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		// SIGSTOP pauses the daemon. So the daemon has not yet read the request when the next
		// signal arrives.
		d.cmd.Process.Signal(unix.SIGSTOP)
		if !eventually(5*time.Second, func() bool { return isStopped(d.cmd.Process.Pid) }) {
			t.Fatal("the daemon does not stop for SIGSTOP")
		}
		fmt.Fprintln(conn, `{"op":"get","name":"A"}`)
		d.cmd.Process.Signal(sig)
		if err := d.stop(unix.SIGCONT); err != nil {
			t.Errorf("after %v, the daemon exits with the error %v", sig, err)
		}
		if answer, err := lines.ReadString('\n'); err != nil || answer != `{"ok":true,"value":"`+tripwire+"\"}\n" {
			t.Errorf("after %v, the answer to the pending request is %q, error %v", sig, answer, err)
		}
		for path, want := range map[string]bool{
			d.adminSocket(): true, d.projectSocket("api"): true, filepath.Dir(d.adminSocket()): true, filepath.Dir(d.projectSocket("api")): true,
		} {
			if _, err := os.Stat(path); (err == nil) != want {
				t.Errorf("after %v, the file %s exists: %v, want %v", sig, path, err == nil, want)
			}
		}
	}
}

// isStopped reports whether a process is stopped (proc_pid_stat(5), state T).
func isStopped(pid int) bool {
	_, state, _ := strings.Cut(readFile(fmt.Sprintf("/proc/%d/stat", pid)), ") ")
	return strings.HasPrefix(state, "T")
}
