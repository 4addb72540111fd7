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

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// TestSocketAndDirectoryModes starts the daemon with a umask that removes permissions. The
// sockets and their directories must still have the documented modes.
func TestSocketAndDirectoryModes(t *testing.T) {
	oldUmask := unix.Umask(0o077)
	defer unix.Umask(oldUmask)
	d := startDaemon(t, "keyhatchd", newRuntimeDir(t))
	registerProject(t, d)
	for path, want := range map[string]os.FileMode{
		d.dir:                            0o755 | os.ModeDir,
		filepath.Dir(d.adminSocket()):    0o750 | os.ModeDir,
		d.adminSocket():                  0o660 | os.ModeSocket,
		filepath.Join(d.dir, "projects"): 0o700 | os.ModeDir,
		d.projectDir(t, "api"):           0o755 | os.ModeDir,
		d.projectSocket("api"):           0o666 | os.ModeSocket,
	} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Error(err)
		} else if info.Mode() != want {
			t.Errorf("the mode of %s is %v, want %v", path, info.Mode(), want)
		}
	}
}

// projectDir returns the directory that a container of the project mounts.
func (d *daemon) projectDir(t *testing.T, name string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(filepath.Dir(d.projectSocket(name)))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestOnlySocketsAndAuditLogOnDisk registers a project, pushes a secret, and gets it. The daemon
// must create only the sockets, their directories and links, the lock file, and the audit log.
// The test looks only at its own directory.
func TestOnlySocketsAndAuditLogOnDisk(t *testing.T) {
	d := startDaemon(t, "keyhatchd", newRuntimeDir(t))
	registerProject(t, d)
	pushSecret(t, d, tripwire)
	sendRequest(t, d.projectSocket("api"), `{"op":"get","name":"A"}`)
	var found []string
	filepath.WalkDir(filepath.Dir(d.dir), func(path string, _ os.DirEntry, err error) error {
		rel, _ := filepath.Rel(filepath.Dir(d.dir), path)
		found = append(found, rel)
		return err
	})
	want := ". audit.log run run/admin run/admin/admin.sock run/devcontainers run/lock run/projects run/projects/DIR run/projects/DIR/broker.sock run/projects/api"
	if got := strings.ReplaceAll(strings.Join(found, " "), filepath.Base(d.projectDir(t, "api")), "DIR"); got != want {
		t.Errorf("the daemon created these files:\n%s\nwant:\n%s", got, want)
	}
}

// TestSameUIDCannotReadProcess starts the daemon and cat with the same uid. cat must not be able
// to read the daemon's memory, because the /proc files of an undumpable process belong to root.
func TestSameUIDCannotReadProcess(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "running a daemon as another uid requires root")
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chown(dir, 65533, 65533)
	binary := filepath.Join(dir, "keyhatchd.test")
	if output, err := exec.Command("cp", os.Args[0], binary).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	output := newOutputRecorder()
	cmd := exec.Command(binary, "--runtime-dir", dir+"/run", "--projects-dir", "", "--audit", "file:"+dir+"/audit.log")
	cmd.Env = append(os.Environ(), "KEYHATCH_TEST_AS=keyhatchd")
	cmd.Stderr = output
	otherUser := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	cmd.SysProcAttr = otherUser
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); output.close(); close(ended) }()
	defer func() { cmd.Process.Kill(); <-ended }()
	if !output.waitFor("serving") {
		t.Fatal(output.String())
	}
	for _, file := range []string{"mem", "environ", "maps"} {
		cat := exec.Command("cat", fmt.Sprintf("/proc/%d/%s", cmd.Process.Pid, file))
		cat.SysProcAttr = otherUser
		if err := cat.Run(); err == nil {
			t.Errorf("a process with the same uid can read /proc/PID/%s of the daemon", file)
		}
	}
}

// TestUIDMustBeAllowed connects with a uid, like a process in a container. While the uid is not
// allowed, the broker must refuse the connection and record this in the audit log. After a
// registration allows the uid, the broker must answer.
func TestUIDMustBeAllowed(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "connecting as another uid requires root")
	d := startDaemon(t, "keyhatchd", newRuntimeDir(t))
	admin := dialAdmin(t, d)
	text := testManifest
	for _, allowedUIDs := range [][]uint32{nil, {otherUID}} {
		if _, err := admin.Register(context.Background(), schema.RegisterRequest{
			Name: "api", ProjectPath: "/nowhere/api", Manifest: &text, AllowUIDs: allowedUIDs,
		}); err != nil {
			t.Fatal(err)
		}
		want := `"code":"peer_unexpected"`
		if allowedUIDs != nil {
			want = `"project":"api"`
		}
		if answer := pingAsOtherUID(t, d); !strings.Contains(answer, want) {
			t.Errorf("if the allowed uids are %v, the answer is %s, want %s", allowedUIDs, answer, want)
		}
		if err := admin.Unregister(context.Background(), "api"); err != nil {
			t.Fatal(err)
		}
	}
	if !eventually(5*time.Second, func() bool { return strings.Contains(readFile(d.audit), `"event":"peer.refused","peer_uid":12345`) }) {
		t.Error("the refusal is not in the audit log")
	}
}

// TestOwnerOfDirectoryIsNotAllowed changes the owner of a declared project's directory to a uid
// that the operator has never approved. The broker must refuse connections of this uid, also
// after SIGHUP and after a restart.
func TestOwnerOfDirectoryIsNotAllowed(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "connecting as another uid requires root")
	runtimeDir := newRuntimeDir(t)
	projectPath, projectsDir := filepath.Join(filepath.Dir(runtimeDir), "api"), filepath.Join(filepath.Dir(runtimeDir), "projects.d")
	for _, dir := range []string{projectPath, projectsDir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	declare := func(uids ...uint32) {
		text, err := manifest.Declaration{Name: "api", Path: projectPath, AllowUIDs: uids, Manifest: testManifest}.Encode()
		if err == nil {
			err = os.WriteFile(filepath.Join(projectsDir, "api.yaml"), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	declare()
	d := startDaemon(t, "keyhatchd", runtimeDir, "--projects-dir", projectsDir)
	if err := os.Chown(projectPath, otherUID, -1); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		if answer := pingAsOtherUID(t, d); !strings.Contains(answer, `"code":"peer_unexpected"`) {
			t.Errorf("%s, the answer to the new owner of the directory is %s", when, answer)
		}
	}
	check("after chown")
	declare(1) // if the uids change, the broker unregisters the project and registers it again
	d.cmd.Process.Signal(syscall.SIGHUP)
	if !eventually(5*time.Second, func() bool { return strings.Contains(readFile(d.audit), "project.unregistered") }) {
		t.Fatal("the broker did not apply the changed declaration")
	}
	check("after SIGHUP")
	d.stop(syscall.SIGTERM)
	d = startDaemon(t, "keyhatchd", runtimeDir, "--projects-dir", projectsDir)
	check("after a restart")
}

// TestOwnerIsAllowedIfNoUIDsAreGiven registers a project without uids. The owner that the
// directory has at the registration must be able to use the project's socket.
func TestOwnerIsAllowedIfNoUIDsAreGiven(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "connecting as another uid requires root")
	d := startDaemon(t, "keyhatchd", newRuntimeDir(t))
	projectPath := t.TempDir()
	if err := os.Chown(projectPath, otherUID, -1); err != nil {
		t.Fatal(err)
	}
	text := testManifest
	if _, err := dialAdmin(t, d).Register(context.Background(), schema.RegisterRequest{Name: "api", ProjectPath: projectPath, Manifest: &text}); err != nil {
		t.Fatal(err)
	}
	if answer := pingAsOtherUID(t, d); !strings.Contains(answer, `"project":"api"`) {
		t.Errorf("the answer to the owner is %s", answer)
	}
}

// otherUID is a uid other than the uid of the daemon and the uid of root.
const otherUID = 12345

// pingAsOtherUID sends a ping to the socket of project api from a process with otherUID, and
// returns the answer.
func pingAsOtherUID(t *testing.T, d *daemon) string {
	t.Helper()
	mount, err := os.Open(filepath.Dir(d.projectSocket("api")))
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
	// otherUID cannot enter the parent directories of the socket. So the client inherits an open
	// file descriptor of the project's directory. A container would have a mount instead.
	cmd := exec.Command(binary, "/proc/self/fd/3/broker.sock")
	cmd.Env = append(os.Environ(), "KEYHATCH_TEST_AS=ping")
	cmd.ExtraFiles = []*os.File{mount}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUID, Gid: otherUID}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// printPing sends a ping to a project's socket and prints the answer.
func printPing(path string) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Fprintln(conn, `{"op":"ping"}`)
	answer, _ := bufio.NewReader(conn).ReadString('\n')
	fmt.Print(answer)
}
