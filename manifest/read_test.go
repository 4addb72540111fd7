package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

const (
	first  = ".devcontainer/keyhatch.yaml"
	second = ".keyhatch/manifest.yaml"
)

// TestReadStaysInProjectDir reads manifests from directories with content that untrusted
// code could create. Read must return only regular files of the directory, and must close
// all files.
func TestReadStaysInProjectDir(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside.yaml")
	writeFile(t, outside, "secret of the host")
	openBefore := countDescriptors(t)
	for _, c := range []struct {
		name    string
		setup   func(dir string)
		want    File
		wantErr string
	}{
		{"first", func(dir string) { writeFile(t, dir+"/"+first, "one") }, File{[]byte("one"), first, ""}, ""},
		{"second", func(dir string) { writeFile(t, dir+"/"+second, "two") }, File{[]byte("two"), second, ""}, ""},
		{"both", func(dir string) {
			writeFile(t, dir+"/"+first, "one")
			writeFile(t, dir+"/"+second, "two")
		}, File{[]byte("one"), first, second}, ""},
		{"second is unusable", func(dir string) {
			writeFile(t, dir+"/"+first, "one")
			symlink(t, outside, dir+"/"+second)
		}, File{[]byte("one"), first, second}, ""},
		{"second is a dangling link", func(dir string) {
			writeFile(t, dir+"/"+first, "one")
			symlink(t, "none", dir+"/"+second)
		}, File{[]byte("one"), first, ""}, ""},
		{"first is a dangling link", func(dir string) {
			symlink(t, "none", dir+"/"+first)
			writeFile(t, dir+"/"+second, "two")
		}, File{[]byte("two"), second, ""}, ""},
		{"neither", func(string) {}, File{}, "the project has no manifest"},
		{"empty", func(dir string) { writeFile(t, dir+"/"+first, "") }, File{[]byte{}, first, ""}, ""},
		{"link within", func(dir string) {
			writeFile(t, dir+"/conf/m.yaml", "within")
			symlink(t, "../conf/m.yaml", dir+"/"+first)
		}, File{[]byte("within"), first, ""}, ""},
		{"links to links, with dots after a link to a directory", func(dir string) {
			writeFile(t, dir+"/a/b/m.yaml", "physical")
			writeFile(t, dir+"/m.yaml", "lexical")
			symlink(t, "a/b/c", dir+"/.devcontainer")
			symlink(t, "../x/../l", dir+"/a/b/c/keyhatch.yaml")
			writeFile(t, dir+"/a/b/x/y", "")
			symlink(t, "./m.yaml", dir+"/a/b/l")
		}, File{[]byte("physical"), first, ""}, ""},
		{"link loop", func(dir string) { symlink(t, "keyhatch.yaml", dir+"/"+first) }, File{}, "too many levels of symbolic links"},
		{"link loop of two", func(dir string) {
			symlink(t, "../.keyhatch/manifest.yaml", dir+"/"+first)
			symlink(t, "../.devcontainer/keyhatch.yaml", dir+"/"+second)
		}, File{}, "too many levels of symbolic links"},
		{"link out", func(dir string) { symlink(t, outside, dir+"/"+first) }, File{}, "leads out"},
		{"absolute link within", func(dir string) {
			writeFile(t, dir+"/m.yaml", "x")
			symlink(t, dir+"/m.yaml", dir+"/"+first)
		}, File{}, "leads out"},
		{"link out by dots", func(dir string) { symlink(t, "../../../../../../../../"+outside, dir+"/"+first) }, File{}, "leads out"},
		{"link out and in again", func(dir string) {
			writeFile(t, dir+"/m.yaml", "x")
			symlink(t, "../../"+filepath.Base(dir)+"/m.yaml", dir+"/"+first)
		}, File{}, "leads out"},
		{"link to a link out", func(dir string) {
			symlink(t, "../l", dir+"/"+first)
			symlink(t, outside, dir+"/l")
		}, File{}, "leads out"},
		{"directory out", func(dir string) { symlink(t, filepath.Dir(outside), dir+"/.devcontainer") }, File{}, "leads out"},
		{"link to a file with a slash", func(dir string) {
			writeFile(t, dir+"/m.yaml", "x")
			symlink(t, "../m.yaml/", dir+"/"+first)
		}, File{}, "not a directory"},
		{"magic link", func(dir string) { symlink(t, "/proc/self/exe", dir+"/"+first) }, File{}, "leads out"},
		{"FIFO", func(dir string) { makeNode(t, dir+"/"+first, unix.S_IFIFO, 0) }, File{}, "not a regular file"},
		{"link to a FIFO", func(dir string) {
			makeNode(t, dir+"/conf/fifo", unix.S_IFIFO, 0)
			symlink(t, "../conf/fifo", dir+"/"+first)
		}, File{}, "not a regular file"},
		{"FIFO as directory", func(dir string) { makeNode(t, dir+"/.devcontainer", unix.S_IFIFO, 0) }, File{}, "not a directory"},
		{"socket", func(dir string) { makeNode(t, dir+"/"+first, unix.S_IFSOCK, 0) }, File{}, "not a regular file"},
		{"directory", func(dir string) { writeFile(t, dir+"/"+first+"/x", "") }, File{}, "not a regular file"},
		{"large", func(dir string) {
			writeFile(t, dir+"/"+second, strings.Repeat("x", 99<<10))
		}, File{[]byte(strings.Repeat("x", schema.MaxManifest+1)), second, ""}, ""},
		{"1 GB", func(dir string) {
			writeFile(t, dir+"/"+second, "")
			if err := os.Truncate(dir+"/"+second, 1<<30); err != nil {
				t.Fatal(err)
			}
		}, File{make([]byte, schema.MaxManifest+1), second, ""}, ""},
	} {
		dir := t.TempDir()
		c.setup(dir)
		got, err := Read(dir)
		if string(got.Text) != string(c.want.Text) || (err == nil) != (c.wantErr == "") || (err != nil && !strings.Contains(err.Error(), c.wantErr)) {
			t.Errorf("%s: %.40q, %v", c.name, got.Text, err)
		}
		if err == nil && (got.Path != c.want.Path || got.Ignored != c.want.Ignored) {
			t.Errorf("%s: read %q and ignored %q, want %q and %q", c.name, got.Path, got.Ignored, c.want.Path, c.want.Ignored)
		}
		if errors.Is(err, ErrNotFound) != (c.name == "neither") {
			t.Errorf("%s: the error is %v; only the case neither must return ErrNotFound", c.name, err)
		}
		if n := countDescriptors(t); n != openBefore {
			t.Errorf("%s: %d descriptors are open, want %d", c.name, n, openBefore)
		}
	}
}

// TestReadRefusesOtherDirs calls Read with paths that are not directories. Read must return
// an error, and must not open the FIFO, because opening a FIFO for reading would block.
func TestReadRefusesOtherDirs(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/file", "")
	makeNode(t, dir+"/fifo", unix.S_IFIFO, 0)
	for name, want := range map[string]error{"none": fs.ErrNotExist, "file": syscall.ENOTDIR, "fifo": syscall.ENOTDIR} {
		_, err := Read(filepath.Join(dir, name))
		if !errors.Is(err, want) || errors.Is(err, ErrNotFound) || !strings.HasPrefix(err.Error(), "cannot open the project's directory: ") || strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReadOpensNoDevice reads a manifest that is a device node without a driver. Opening the node
// would fail with ENXIO. Read must find out that the manifest is not a regular file, and must not
// open the node.
func TestReadOpensNoDevice(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "only root can create a device node")
	const unusedMajor = 4095
	for name, mode := range map[string]uint32{"character": unix.S_IFCHR, "block": unix.S_IFBLK} {
		dir := t.TempDir()
		makeNode(t, dir+"/"+first, mode, int(unix.Mkdev(unusedMajor, 1)))
		_, err := os.Open(dir + "/" + first)
		testenv.Require(t, err != nil && !errors.Is(err, fs.ErrPermission), fmt.Sprintf("this file system does not allow devices: %v", err))
		if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s device: %v", name, err)
		}
		makeNode(t, dir+"/device", mode, int(unix.Mkdev(unusedMajor, 1)))
		if _, err := Read(dir + "/device"); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s device as directory: %v", name, err)
		}
	}
}

// TestReadNeverOpensSwappedFile replaces the manifest by a FIFO, a directory, and links,
// again and again, while Read reads it. Read must return the complete text of one regular
// file in the directory, or an error, and it must not block.
func TestReadNeverOpensSwappedFile(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside.yaml")
	writeFile(t, outside, "outside")
	writeFile(t, dir+"/.devcontainer/x/a", strings.Repeat("a", 9000))
	writeFile(t, dir+"/.devcontainer/x/b", strings.Repeat("b", 9000))
	makeNode(t, dir+"/.devcontainer/x/fifo", unix.S_IFIFO, 0)
	symlink(t, outside, dir+"/.devcontainer/x/out")
	symlink(t, "x/a", dir+"/.devcontainer/x/in")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // this goroutine ends when stop is closed
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			target := dir + "/.devcontainer/x/" + []string{"a", "fifo", "out", "b", "in"}[i%5]
			temp := dir + "/.devcontainer/new"
			os.Remove(temp)
			if os.Link(target, temp) == nil {
				os.Rename(temp, dir+"/"+first)
			}
		}
	}()
	results := map[string]int{}
	deadline := time.Now().Add(time.Minute)
	for n := 0; n < 3000 || (results["refused"] == 0 || results["read"] == 0) && time.Now().Before(deadline); n++ {
		file, err := Read(dir)
		switch {
		case err != nil && (strings.Contains(err.Error(), "not a regular file") || strings.Contains(err.Error(), "leads out") || errors.Is(err, ErrNotFound)):
			results["refused"]++
		case err == nil && (string(file.Text) == strings.Repeat("a", 9000) || string(file.Text) == strings.Repeat("b", 9000)):
			results["read"]++
		default:
			t.Fatalf("%.20q, %v", file.Text, err)
		}
	}
	close(stop)
	<-stopped
	if results["refused"] == 0 || results["read"] == 0 {
		t.Errorf("Read must have read and refused the manifest at least once each, but the numbers are %v", results)
	}
}

// TestReadDoesNotWaitForLease reads a file on which a process holds a write lease. Read
// must fail at once with EAGAIN. A process in a container can hold such a lease, and
// opening the file could then block for 45 seconds.
func TestReadDoesNotWaitForLease(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/"+first, "one")
	f, err := os.OpenFile(dir+"/"+first, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETSIG, int(unix.SIGURG)); err != nil { // the kernel sends this signal when Read opens the file; the Go runtime handles SIGURG
		t.Fatal(err)
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	testenv.Require(t, err == nil, fmt.Sprintf("this file system has no leases: %v", err))
	if _, err := Read(dir); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("%v, want EAGAIN", err)
	}
}

// TestReadWithoutPrivileges reads manifests as a user without privileges in a process that
// is not dumpable, as the broker is. The files in /proc of such a process belong to root,
// but Read must work. The test also calls Read in a process without /proc, in which Read
// must return a clear error.
func TestReadWithoutPrivileges(t *testing.T) {
	const variable, noProc = "MANIFEST_TEST_DIR", "MANIFEST_TEST_NO_PROC"
	if os.Getenv(noProc) != "" {
		if _, err := Read("/good"); err == nil || !strings.Contains(err.Error(), "/proc is not mounted") {
			t.Errorf("without /proc: %v", err)
		}
		return
	}
	if dir := os.Getenv(variable); dir != "" {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		if file, err := Read(dir + "/good"); err != nil || string(file.Text) != "one" {
			t.Errorf("%q, %v", file.Text, err)
		}
		if _, err := Read(dir + "/secret"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("a file without permission: %v", err)
		}
		if _, err := Read(dir + "/closed"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("a directory without permission: %v", err)
		}
		return
	}
	testenv.Require(t, os.Geteuid() == 0, "only root can run a process as another user")
	dir, err := os.MkdirTemp("/tmp", "manifest-test-") // not t.TempDir(), which the other user cannot access
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = errors.Join(os.WriteFile(dir+"/test", binary, 0o755), os.Chmod(dir, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"good", "secret", "closed"} {
		writeFile(t, dir+"/"+name+"/"+first, "one")
	}
	if err := errors.Join(os.Chmod(dir+"/good/"+first, 0o644), os.Chmod(dir+"/closed/.devcontainer", 0o700)); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(dir+"/test", "-test.run=^TestReadWithoutPrivileges$")
	c.Env = []string{variable + "=" + dir}
	c.Dir = dir
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4242, Gid: 4242}}
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	c = exec.Command("/test", "-test.run=^TestReadWithoutPrivileges$")
	c.Env = []string{noProc + "=1"}
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
	if out, err := c.CombinedOutput(); errors.Is(err, fs.ErrNotExist) {
		t.Log("the test binary needs shared libraries, so it cannot run without /proc")
	} else if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

func countDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func makeNode(t *testing.T, path string, mode uint32, device int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(path, mode|0o600, device); err != nil {
		t.Fatal(err)
	}
}
