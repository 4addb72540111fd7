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

// TestOneServes starts two daemons at once, several times over: exactly one
// serves, the other says why and exits 1.
func TestOneServes(t *testing.T) {
	for range 5 {
		dir := dirFor(t)
		a, b := launch(t, "keyhatchd", dir), launch(t, "keyhatchd", dir)
		var lost, won *daemon
		select {
		case <-a.ended:
			lost, won = a, b
		case <-b.ended:
			lost, won = b, a
		}
		won.await(t, "serving")
		if code := lost.cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("the second daemon exits %d, want 1", code)
		}
		for _, want := range []string{"another keyhatchd is serving here", "hint: "} {
			if !strings.Contains(lost.output.String(), want) {
				t.Errorf("the second daemon does not say %q:\n%s", want, lost.output.String())
			}
		}
		if _, err := dialAdmin(t, won).Ping(context.Background()); err != nil {
			t.Error(err)
		}
		if err := won.stop(unix.SIGTERM); err != nil {
			t.Error(err)
		}
	}
}

// TestStaleSocket kills a daemon and starts another: it replaces the socket,
// and keeps the project's directory, which a container may have mounted.
func TestStaleSocket(t *testing.T) {
	dir := dirFor(t)
	d := start(t, "keyhatchd", dir)
	register(t, d)
	before, err := os.Stat(filepath.Dir(d.project("api")))
	if err != nil {
		t.Fatal(err)
	}
	d.stop(unix.SIGKILL)
	if _, err := os.Stat(d.admin()); err != nil {
		t.Fatal("there is no stale socket to replace")
	}
	d = start(t, "keyhatchd", dir)
	if _, err := dialAdmin(t, d).Ping(context.Background()); err != nil {
		t.Error(err)
	}
	register(t, d)
	after, err := os.Stat(filepath.Dir(d.project("api")))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the project's directory was replaced: %v", err)
	}
}

// TestLiveSocketIsNotTaken has another process listen where the admin socket
// would be, without holding the runtime directory, as a service manager does.
func TestLiveSocketIsNotTaken(t *testing.T) {
	dir := dirFor(t)
	d := launch(t, "keyhatchd", dir)
	d.await(t, "serving")
	d.stop(unix.SIGTERM)
	l, err := net.Listen("unix", d.admin())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d = launch(t, "keyhatchd", dir)
	<-d.ended
	if !strings.Contains(d.output.String(), "listens there") || d.cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("exit %d:\n%s", d.cmd.ProcessState.ExitCode(), d.output.String())
	}
	if conn, err := net.Dial("unix", d.admin()); err != nil {
		t.Errorf("the live socket is gone: %v", err)
	} else {
		conn.Close()
	}
}

// TestStopDrains stops a daemon with a request on its way: it is answered, the
// sockets go, the directories stay, and the exit code is 0.
func TestStopDrains(t *testing.T) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		d := start(t, "keyhatchd", dirFor(t))
		register(t, d)
		push(t, d, tripwire)
		conn, err := net.Dial("unix", d.project("api"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintln(conn, `{"op":"ping"}`)
		lines := bufio.NewReader(conn)
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		// Stopped, so that the request is in the socket's queue, unread, when
		// the signal comes.
		d.cmd.Process.Signal(unix.SIGSTOP)
		if !eventually(5*time.Second, func() bool { return stopped(d.cmd.Process.Pid) }) {
			t.Fatal("the daemon does not stop for SIGSTOP")
		}
		fmt.Fprintln(conn, `{"op":"get","name":"A"}`)
		d.cmd.Process.Signal(sig)
		if err := d.stop(unix.SIGCONT); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
		if answer, err := lines.ReadString('\n'); err != nil || answer != `{"ok":true,"value":"`+tripwire+"\"}\n" {
			t.Errorf("%v: the request on its way got %q, %v", sig, answer, err)
		}
		for path, want := range map[string]bool{
			d.admin(): false, d.project("api"): false, filepath.Dir(d.admin()): true, filepath.Dir(d.project("api")): true,
		} {
			if _, err := os.Stat(path); (err == nil) != want {
				t.Errorf("%v: %s is there: %v, want %v", sig, path, err == nil, want)
			}
		}
	}
}

// stopped reports whether a process is stopped (proc_pid_stat(5), state T).
func stopped(pid int) bool {
	_, state, _ := strings.Cut(readFile(fmt.Sprintf("/proc/%d/stat", pid)), ") ")
	return strings.HasPrefix(state, "T")
}
