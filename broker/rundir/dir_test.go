package rundir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenLeavesExistingDirectoriesAlone calls Open for directories that other users or
// other programs also use. Open must fail and must not change such a directory.
func TestOpenLeavesExistingDirectoriesAlone(t *testing.T) {
	for want, prepare := range map[string]func(dir string) error{
		"other users can write": func(dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) },
		"it contains Documents": func(dir string) error { return os.Mkdir(filepath.Join(dir, "Documents"), 0o755) },
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "projects"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := prepare(dir); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := Open(dir, -1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q", err, want)
			if err == nil {
				d.Close()
			}
		}
		after, err := os.Stat(dir)
		if err != nil || after.Mode() != before.Mode() {
			t.Errorf("Open changed the mode of the directory from %v to %v, error %v", before.Mode(), after.Mode(), err)
		}
		if info, err := os.Stat(filepath.Join(dir, "projects")); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("Open changed the mode of the directory `projects` to %v, error %v", info.Mode(), err)
		}
	}
}

// TestLockIsOutOfReach locks the runtime directory itself, as any user can do. Open must still
// work. But while a Dir is open, a second Open of the same directory must fail with ErrBusy.
func TestLockIsOutOfReach(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	d, err := Open(dir, -1)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := Open(dir, -1); !errors.Is(err, ErrBusy) {
		t.Errorf("a second call of Open returns the error %v, want ErrBusy", err)
		second.Close()
	}
	d.Close()
	file, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(dir, -1); err != nil {
		t.Fatalf("the broker cannot start if another process has locked the directory: %v", err)
	}
	d.Close()
	if info, err := os.Stat(filepath.Join(dir, "lock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the mode of the lock file is %v, error %v, want 0600", info.Mode(), err)
	}
}
