package devcontainer

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestRenderRemovesTempFileOfKilledProcess creates the temporary file of a killed process. The next Render
// must remove it, also if no file has changed.
func TestRenderRemovesTempFileOfKilledProcess(t *testing.T) {
	r, home := newTestRendering(t)
	files := []File{{"A", home + "/a", 0o600, ""}}
	if _, err := r.Render(files, secretValues("A=1")); err != nil {
		t.Fatal(err)
	}
	leftover, err := r.writeTemp([]byte("1"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Render(files, secretValues("A=1")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(leftover); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary file of the killed process remains: %v", err)
	}
}

// TestRenderKeepsTempFileOfRunningProcess renders files while another process has a temporary file.
// Render must not remove this temporary file.
func TestRenderKeepsTempFileOfRunningProcess(t *testing.T) {
	r, home := newTestRendering(t)
	files := []File{{"A", home + "/a", 0o600, ""}}
	if _, err := r.Render(files, secretValues("A=1")); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockTempFiles(r.projectDir())
	if err != nil {
		t.Fatal(err)
	}
	other, err := r.writeTemp([]byte("1"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Render(files, secretValues("A=2")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(other); err != nil {
		t.Errorf("Render removed the temporary file of another process: %v", err)
	}
	unlock()
	if _, err := r.Render(files, secretValues("A=2")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary file remains: %v", err)
	}
}

// TestRemoveReportsFileThatReplacedLink replaces a link by a file, as sed -i does. Remove must
// report the file and must not change it. Remove must remove all other files and links of the
// project.
func TestRemoveReportsFileThatReplacedLink(t *testing.T) {
	r, home := newTestRendering(t)
	files := []File{{"A", home + "/a", 0o600, ""}, {"B", home + "/b", 0o600, ""}}
	if _, err := r.Render(files, secretValues("A=1", "B=1")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(home+"/a"), os.WriteFile(home+"/a", []byte("1"), 0o600)); err != nil {
		t.Fatal(err)
	}
	err := r.Remove()
	if !errors.Is(err, ErrLinkReplaced) || !strings.Contains(err.Error(), home+"/a was not removed") || strings.Contains(err.Error(), home+"/b") {
		t.Errorf("got the error %v", err)
	}
	if text, err := os.ReadFile(home + "/a"); string(text) != "1" || err != nil {
		t.Errorf("the file contains %q, error %v", text, err)
	}
	for _, path := range []string{home + "/b", r.dir} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s remains: %v", path, err)
		}
	}
}

// TestRenderReportsFileThatReplacedLink replaces a link by a file, as sed -i does. The manifest then declares
// another path, or no longer declares the file. Each later call must report the file until it is removed.
func TestRenderReportsFileThatReplacedLink(t *testing.T) {
	r, home := newTestRendering(t)
	a, b := File{"A", home + "/a", 0o600, ""}, File{"B", home + "/b", 0o600, ""}
	moved := File{"A", home + "/moved", 0o600, ""}
	render := func(files ...File) error {
		if _, err := r.Render(files, secretValues("A=1", "B=1")); err != nil {
			return err
		}
		_, err := r.Prune(files)
		return err
	}
	if err := render(a, b); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(a.Path), os.WriteFile(a.Path, []byte("1"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, files := range [][]File{{moved, b}, {b}} {
			err := render(files...)
			if !errors.Is(err, ErrLinkReplaced) || !strings.Contains(err.Error(), a.Path) || strings.Contains(err.Error(), b.Path) {
				t.Errorf("%v: got the error %v", files, err)
			}
			if text, err := os.ReadFile(a.Path); string(text) != "1" || err != nil {
				t.Errorf("the file contains %q, error %v", text, err)
			}
		}
		if _, err := os.Lstat(r.filePath("A")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the secret remains in memory: %v", err)
		}
	}
	if err := os.Remove(a.Path); err != nil {
		t.Fatal(err)
	}
	for _, files := range [][]File{{b}, {moved, b}} {
		if err := render(files...); err != nil {
			t.Errorf("%v: after the removal of the file: %v", files, err)
		}
	}
}
