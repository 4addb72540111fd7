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

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

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
