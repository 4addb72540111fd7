package devcontainer

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

const text = "schema_version: 1\nproject: api\nsecrets: {A: {env: VA}}\n"

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFindManifest(t *testing.T) {
	for name, c := range map[string]struct {
		make  func(dir string)
		wrong string
	}{
		"here":  {func(d string) { write(t, d+"/a/b/.devcontainer/keyhatch.yaml", text) }, ""},
		"above": {func(d string) { write(t, d+"/.keyhatch/manifest.yaml", text) }, ""},
		"nearest": {func(d string) {
			write(t, d+"/a/.keyhatch/manifest.yaml", text)
			write(t, d+"/.keyhatch/manifest.yaml", "bad")
		}, ""},
		"none": {func(string) {}, "no manifest from here up"},
		"bad": {func(d string) {
			write(t, d+"/a/.keyhatch/manifest.yaml", "bad")
			write(t, d+"/.keyhatch/manifest.yaml", text)
		},
			"/a/.keyhatch/manifest.yaml: manifest line 1"},
		"of another project": {func(d string) {
			write(t, d+"/.keyhatch/manifest.yaml", strings.Replace(text, "api", "web", 1))
		}, `project must be "api"`},
		"a link out": {func(d string) {
			write(t, d+"/outside.yaml", text)
			write(t, d+"/a/.keyhatch/x", "")
			if err := os.Symlink(d+"/outside.yaml", d+"/a/.keyhatch/manifest.yaml"); err != nil {
				t.Fatal(err)
			}
		}, "escapes"},
	} {
		dir := t.TempDir()
		if err := os.MkdirAll(dir+"/a/b", 0o755); err != nil {
			t.Fatal(err)
		}
		c.make(dir)
		m, err := FindManifest(dir+"/a/b", "api")
		if (err == nil) != (c.wrong == "") || (err != nil && !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && m.Secrets["A"].Env != "VA" {
			t.Errorf("%s: %+v", name, m)
		}
		if errors.Is(err, ErrNoManifest) != (name == "none") {
			t.Errorf("%s: ErrNoManifest is wrong: %v", name, err)
		}
	}
}

// A home of mode 0711 lies above many projects. Its users pass through it; that
// they cannot look around in it must not keep them from their secrets.
func TestFindManifestBelowClosedDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/home/me", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/.keyhatch/manifest.yaml", text)
	if err := os.Chmod(dir+"/home", 0o311); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(dir+"/home", 0o755) }) // or it cannot be removed
	// Root reads all directories, and is one of them in many containers: the
	// thread gives that power up, and is thrown away because it is never unlocked.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := dropCapabilities(); err != nil {
			t.Errorf("dropping capabilities: %v", err)
			return
		}
		if _, err := os.ReadDir(dir + "/home"); err == nil {
			t.Error("the directory can be read: nothing is tested")
		}
		if m, err := FindManifest(dir+"/home/me", "api"); err != nil || m.Secrets["A"].Env != "VA" {
			t.Errorf("%v, %v", m, err)
		}
	}()
	<-done
}

// dropCapabilities takes all effective capabilities from this thread alone.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // version 3 has two words for each set
	return unix.Capset(&header, &data[0])
}

func TestReadManifest(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/good.yaml", text)
	write(t, dir+"/bad.yaml", "bad")
	write(t, dir+"/large.yaml", text+"#"+strings.Repeat("x", schema.MaxManifest))
	if err := syscall.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("good.yaml", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for file, wrong := range map[string]string{
		"good.yaml": "", "link": "",
		"bad.yaml":   "bad.yaml: manifest line 1: the manifest must be a mapping",
		"large.yaml": "large.yaml: manifest: it has",
		"fifo":       "it is not a regular file",
		".":          "it is not a regular file",
		"none":       "none: no such file",
	} {
		_, err := ReadManifest(filepath.Join(dir, file), "api")
		if (err == nil) != (wrong == "") || (err != nil && !strings.Contains(err.Error(), wrong)) {
			t.Errorf("%s: %v, want %q", file, err, wrong)
		}
	}
}
