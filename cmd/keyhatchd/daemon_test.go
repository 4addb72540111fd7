package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

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

// TestModes looks at every mode and owner of DESIGN's table, under a umask that
// would spoil them, and with a project's directory that had another mode.
func TestModes(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	d := start(t, "keyhatchd", dirFor(t))
	register(t, d)
	for path, want := range map[string]os.FileMode{
		d.dir:                                0o755 | os.ModeDir,
		filepath.Dir(d.admin()):              0o750 | os.ModeDir,
		d.admin():                            0o660 | os.ModeSocket,
		filepath.Join(d.dir, "projects"):     0o700 | os.ModeDir,
		filepath.Join(d.dir, "projects/api"): 0o755 | os.ModeDir,
		d.project("api"):                     0o666 | os.ModeSocket,
	} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Error(err)
		} else if info.Mode() != want {
			t.Errorf("%s: mode %v, want %v", path, info.Mode(), want)
		}
	}
}

// TestNothingElseOnDisk walks the runtime directory after a day's work.
func TestNothingElseOnDisk(t *testing.T) {
	d := start(t, "keyhatchd", dirFor(t))
	register(t, d)
	push(t, d, tripwire)
	ask(t, d.project("api"), `{"op":"get","name":"A"}`)
	var found []string
	filepath.WalkDir(filepath.Dir(d.dir), func(path string, _ os.DirEntry, err error) error {
		rel, _ := filepath.Rel(filepath.Dir(d.dir), path)
		found = append(found, rel)
		return err
	})
	want := ". audit.log run run/admin run/admin/admin.sock run/devcontainers run/probe run/probe/probe.sock run/projects run/projects/api run/projects/api/broker.sock"
	if got := strings.Join(found, " "); got != want {
		t.Errorf("on disk:\n%s\nwant:\n%s", got, want)
	}
}

// TestAuditRotation renames the audit log away: the next event makes a new one.
func TestAuditRotation(t *testing.T) {
	d := start(t, "keyhatchd", dirFor(t))
	register(t, d)
	if !eventually(5*time.Second, func() bool { return strings.Contains(readFile(d.audit), "project.registered") }) {
		t.Fatal("the event was not written")
	}
	if err := os.Rename(d.audit, d.audit+".1"); err != nil {
		t.Fatal(err)
	}
	ask(t, d.project("api"), `{"op":"get","name":"A"}`)
	if !eventually(5*time.Second, func() bool { return strings.Contains(readFile(d.audit), `"event":"secrets.fetched"`) }) {
		t.Error("the event after the rotation is not in a new file")
	}
}

// TestUndumpable sees that others of the same uid can read nothing of the
// process: the kernel gives its /proc files to root.
func TestUndumpable(t *testing.T) {
	need(t, os.Geteuid() == 0, "running a daemon as another uid takes root")
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chown(dir, 65533, 65533)
	binary := filepath.Join(dir, "keyhatchd.test")
	if out, err := exec.Command("cp", os.Args[0], binary).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out := newOutput()
	cmd := exec.Command(binary, "--runtime-dir", dir+"/run", "--audit", "file:"+dir+"/audit.log")
	cmd.Env = append(os.Environ(), "KEYHATCH_TEST_AS=keyhatchd")
	cmd.Stderr = out
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	cmd.SysProcAttr = nobody
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); out.end(); close(ended) }()
	defer func() { cmd.Process.Kill(); <-ended }()
	if !out.await("serving") {
		t.Fatal(out.String())
	}
	for _, file := range []string{"mem", "environ", "maps"} {
		peek := exec.Command("cat", fmt.Sprintf("/proc/%d/%s", cmd.Process.Pid, file))
		peek.SysProcAttr = nobody
		if err := peek.Run(); err == nil {
			t.Errorf("the same uid can read /proc/PID/%s", file)
		}
	}
}

// stopped reports whether a process is stopped (proc_pid_stat(5), state T).
func stopped(pid int) bool {
	_, state, _ := strings.Cut(readFile(fmt.Sprintf("/proc/%d/stat", pid)), ") ")
	return strings.HasPrefix(state, "T")
}

// TestUIDGate connects as a uid that is not allowed, as a container's mount
// lets it, and again once it is.
func TestUIDGate(t *testing.T) {
	need(t, os.Geteuid() == 0, "connecting as another uid takes root")
	const uid = 12345
	d := start(t, "keyhatchd", dirFor(t))
	admin := dialAdmin(t, d)
	text := manifestText
	for _, allow := range [][]uint32{nil, {uid}} {
		if _, err := admin.Register(context.Background(), schema.RegisterRequest{
			Name: "api", ProjectPath: "/nowhere/api", Manifest: &text, AllowUIDs: allow,
		}); err != nil {
			t.Fatal(err)
		}
		mount, err := os.Open(filepath.Dir(d.project("api")))
		if err != nil {
			t.Fatal(err)
		}
		defer mount.Close()
		binary := filepath.Join(filepath.Dir(d.dir), "ping")
		if out, err := exec.Command("cp", os.Args[0], binary).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := os.Chmod(filepath.Dir(d.dir), 0o755); err != nil {
			t.Fatal(err)
		}
		// The directory's descriptor stands for the mount: it leads past the
		// directories that this uid cannot walk through.
		cmd := exec.Command(binary, "/proc/self/fd/3/broker.sock")
		cmd.Env = append(os.Environ(), "KEYHATCH_TEST_AS=ping")
		cmd.ExtraFiles = []*os.File{mount}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		want := `"code":"peer_unexpected"`
		if allow != nil {
			want = `"project":"api"`
		}
		if !strings.Contains(string(out), want) {
			t.Errorf("allowed %v: %s, %v; want %s", allow, out, err, want)
		}
		if err := admin.Unregister(context.Background(), "api"); err != nil {
			t.Fatal(err)
		}
	}
	if !eventually(5*time.Second, func() bool { return strings.Contains(readFile(d.audit), `"event":"peer.refused","peer_uid":12345`) }) {
		t.Error("the refusal is not in the audit log")
	}
}

// ping asks a project's socket who is there, and prints the answer.
func ping(path string) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Fprintln(conn, `{"op":"ping"}`)
	answer, _ := bufio.NewReader(conn).ReadString('\n')
	fmt.Print(answer)
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--audit", "nowhere"}, {"--audit", "file:"}, {"--request-rate", "-1"}, {"--no-such-flag"}, {"argument"},
	} {
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), "KEYHATCH_TEST_AS=keyhatchd")
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "hint: see keyhatchd --help") {
			t.Errorf("%v: exit %d: %s", args, cmd.ProcessState.ExitCode(), out)
		}
	}
}

func readFile(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}
