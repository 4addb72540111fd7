package devcontainer

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
)

// newTestRendering returns a rendering whose directory is temporary and in memory. It also
// returns a temporary home directory.
func newTestRendering(t *testing.T) (r Rendering, home string) {
	t.Helper()
	memory, err := os.MkdirTemp("/dev/shm", "kh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(memory) })
	return NewRendering(memory+"/files", "api"), t.TempDir()
}

// secretValues returns text secrets for NAME=value pairs.
func secretValues(pairs ...string) map[schema.SecretName]schema.SecretValue {
	values := map[schema.SecretName]schema.SecretValue{}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		values[schema.SecretName(name)] = schema.SecretValue{Value: &value}
	}
	return values
}

// TestReadersNeverSeeAPartialFile reads a file repeatedly while Render writes the file with
// two texts in turn. Each read must return one of the two complete texts.
func TestReadersNeverSeeAPartialFile(t *testing.T) {
	r, home := newTestRendering(t)
	files := []File{{"A", home + "/a", 0o600, ""}}
	texts := []string{strings.Repeat("x", 1<<16), strings.Repeat("y", 1<<15)}
	render := func(n int) {
		if changed, err := r.Render(files, secretValues("A="+texts[n%2])); err != nil || !changed {
			t.Errorf("Render reports changed=%v, error %v, want changed=true", changed, err)
		}
	}
	render(0)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			got, err := os.ReadFile(home + "/a")
			if err != nil || string(got) != texts[0] && string(got) != texts[1] {
				t.Errorf("the file has %d bytes that are not one of the two texts (error %v)", len(got), err)
				return
			}
		}
	})
	for n := range 500 {
		render(n + 1)
	}
	close(stop)
	wg.Wait()
	if remaining, err := filepath.Glob(r.projectDir() + "/.new-*"); err != nil || len(remaining) > 0 {
		t.Errorf("temporary files remain: %v", remaining)
	}
}

// TestRenderChangesNothingWhenOneFileIsRefused renders two files. The second file has a bad
// template, or its path is occupied. Render must change none of the files.
func TestRenderChangesNothingWhenOneFileIsRefused(t *testing.T) {
	r, home := newTestRendering(t)
	files := []File{{"A", home + "/a", 0o600, ""}, {"B", home + "/sub/b", 0o640, "{{value}}"}}
	if _, err := r.Render(files, secretValues("A=1", "B=1")); err != nil {
		t.Fatal(err)
	}
	if changed, err := r.Render(files, secretValues("A=1", "B=1")); changed || err != nil {
		t.Errorf("after rendering the same secrets again, Render reports changed=%v, error %v, want changed=false", changed, err)
	}
	checkContents := func(when, a, b string) {
		t.Helper()
		for path, want := range map[string]string{home + "/a": a, home + "/sub/b": b} {
			if got, err := os.ReadFile(path); string(got) != want || err != nil {
				t.Errorf("%s: %s contains %q (error %v), want %q", when, path, got, err, want)
			}
		}
	}
	badTemplate := []File{files[0], {"B", home + "/sub/b", 0o640, "{{x}}"}}
	if _, err := r.Render(badTemplate, secretValues("A=2", "B=2")); !errors.Is(err, ErrTemplate) {
		t.Error(err)
	}
	checkContents("a bad template", "1", "1")
	for name, occupy := range map[string]func(path string) error{
		"a file":      func(path string) error { return os.WriteFile(path, []byte("own"), 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"a link":      func(path string) error { return os.Symlink(home+"/a", path) },
		"a dead link": func(path string) error { return os.Symlink("nowhere", path) },
		"another project's": func(path string) error {
			return os.Symlink(r.dir+"/web/files/B", path)
		},
	} {
		path := home + "/" + strings.ReplaceAll(name, " ", "-")
		if err := occupy(path); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Lstat(path)
		_, err := r.Render([]File{files[0], {"B", path, 0o600, ""}}, secretValues("A=3", "B=3"))
		if !errors.Is(err, ErrPathOccupied) || !strings.Contains(err.Error(), "cannot create the link "+path+" for the secret B: ") {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: Render replaced the file at the occupied path", name)
		}
	}
	checkContents("an occupied path", "1", "1")
}

func TestRenderAppliesModeAndPathChanges(t *testing.T) {
	r, home := newTestRendering(t)
	for _, mode := range []fs.FileMode{0o600, 0o440, 0o777, 0o000} {
		if changed, err := r.Render([]File{{"A", home + "/a", mode, ""}}, secretValues("A=1")); err != nil || !changed {
			t.Errorf("mode %v: Render reports changed=%v, error %v, want changed=true", mode, changed, err)
		}
		if info, err := os.Stat(home + "/a"); err != nil || info.Mode() != mode {
			t.Errorf("the file has mode %v (error %v), want %v", info.Mode(), err, mode)
		}
	}
	if _, err := r.Render([]File{{"A", home + "/b", 0o600, ""}}, secretValues("A=1")); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(home + "/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the link at the old path still exists")
	}
	// Two secrets exchange their paths, twice. After each exchange, the file at a path must
	// contain the value of the secret that now has this path.
	both := []File{{"A", home + "/a", 0o600, ""}, {"B", home + "/b", 0o600, ""}}
	for range 2 {
		both[0].Path, both[1].Path = both[1].Path, both[0].Path
		if _, err := r.Render(both, secretValues("A=a", "B=b")); err != nil {
			t.Error(err)
		}
		for _, f := range both {
			if got, err := os.ReadFile(f.Path); err != nil || string(got) != strings.ToLower(string(f.Name)) {
				t.Errorf("%s contains %q (error %v), want the value of %s", f.Path, got, err, f.Name)
			}
		}
	}
	if err := r.Remove(); err != nil {
		t.Error(err)
	}
	if remaining, _ := os.ReadDir(home); len(remaining) > 0 {
		t.Errorf("links remain: %v", remaining)
	}
	if _, err := os.Lstat(r.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the directory in memory still exists")
	}
}

// TestOtherUserCanReadOnlySharedFiles renders files with several modes. Another user must
// be able to read a file if and only if the mode of the file allows it, and must not be able to
// list the directories.
func TestOtherUserCanReadOnlySharedFiles(t *testing.T) {
	testenv.Require(t, os.Geteuid() == 0, "reading a file as another uid requires root")
	r, _ := newTestRendering(t)
	home := filepath.Dir(r.dir) + "/home"
	for _, dir := range []string{filepath.Dir(r.dir), home} {
		os.Mkdir(dir, 0o755)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const otherUID, groupGID = 12345, 12346
	if err := os.Mkdir(r.dir, 0o700); err != nil { // as an earlier version of keyhatch did; Render must add the missing permissions
		t.Fatal(err)
	}
	canRun := func(gid uint32, args ...string) bool {
		c := exec.Command(args[0], args[1:]...)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUID, Gid: gid}}
		return c.Run() == nil
	}
	for _, c := range []struct {
		mode            fs.FileMode
		byGroup, byUser bool
	}{{0o644, true, true}, {0o600, false, false}, {0o640, true, false}, {0o604, false, true}, {0o400, false, false}} {
		files := []File{{"A", home + "/etc/a", c.mode, ""}, {"B", home + "/etc/b", 0o600, ""}}
		if _, err := r.Render(files, secretValues("A=1", "B=1")); err != nil {
			t.Fatal(err)
		}
		if got := canRun(0, "cat", home+"/etc/a"); got != c.byGroup {
			t.Errorf("mode %#o: can the group read the file: %v, want %v", c.mode, got, c.byGroup)
		}
		if got := canRun(groupGID, "cat", home+"/etc/a"); got != c.byUser {
			t.Errorf("mode %#o: can another user read the file: %v, want %v", c.mode, got, c.byUser)
		}
		for _, dir := range []string{r.dir, r.projectDir(), r.projectDir() + "/files"} {
			if canRun(groupGID, "ls", dir) || canRun(0, "ls", dir) {
				t.Errorf("mode %#o: another user can list %s", c.mode, dir)
			}
		}
		if canRun(groupGID, "cat", home+"/etc/b") {
			t.Errorf("mode %#o: another user can read a file with mode 0600", c.mode)
		}
		if err := r.Remove(); err != nil {
			t.Error(err)
		}
	}
}
