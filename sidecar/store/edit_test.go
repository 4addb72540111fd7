package store_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/keyhatch/keyhatch/sidecar/store"
)

func TestDirSetRemoveAndList(t *testing.T) {
	dir := store.Dir{Path: filepath.Join(t.TempDir(), "new")}
	for name, value := range map[string]string{"A": "1", "aws/key": "2", "aws/secret": "3", "B": "4"} {
		if err := dir.Set(name, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]os.FileMode{"": 0o700 | os.ModeDir, "aws": 0o700 | os.ModeDir, "A": 0o600, "aws/key": 0o600} {
		if info, err := os.Stat(filepath.Join(dir.Path, path)); err != nil || info.Mode() != want {
			t.Errorf("%q: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	if err := dir.Set("A", []byte("new")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"aws", "B"} {
		if err := dir.Remove(name); err != nil {
			t.Error(err)
		}
	}
	if names, err := dir.List(); err != nil || !slices.Equal(names, []string{"A"}) {
		t.Errorf("the store lists %v, %v", names, err)
	}
	if entries, err := os.ReadDir(dir.Path); err != nil || len(entries) != 1 {
		t.Errorf("something is left behind beside A: %v, %v", entries, err)
	}
	for _, name := range []string{"", "..", ".x", "a/b/c", "a/", "/a", "a/..", "a b", "x~"} {
		if err := dir.Set(name, nil); err == nil {
			t.Errorf("Set takes the name %q", name)
		}
		if err := dir.Remove(name); err == nil {
			t.Errorf("Remove takes the name %q", name)
		}
	}
}
