package rundir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenLeavesExistingDirectoriesAlone opens directories that are not for keyhatch
// alone.
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
			t.Errorf("the mode %v became %v, %v", before.Mode(), after.Mode(), err)
		}
		if info, err := os.Stat(filepath.Join(dir, "projects")); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("the mode of a directory in it became %v, %v", info.Mode(), err)
		}
	}
}

// TestLockIsOutOfReach locks the directory, as every user can who may open it.
func TestLockIsOutOfReach(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	d, err := Open(dir, -1)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := Open(dir, -1); !errors.Is(err, ErrBusy) {
		t.Errorf("a second broker got %v", err)
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
		t.Fatalf("a lock on the directory keeps the broker from starting: %v", err)
	}
	d.Close()
	if info, err := os.Stat(filepath.Join(dir, "lock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the mode of the lock file is %v, %v", info.Mode(), err)
	}
}
