package store_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
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
			t.Errorf("the path %q in the store has mode %v, error %v; want mode %v", path, info.Mode(), err, want)
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
		t.Errorf("List returned %v, error %v; want only A", names, err)
	}
	if entries, err := os.ReadDir(dir.Path); err != nil || len(entries) != 1 {
		t.Errorf("the directory contains the entries %v, error %v; want only A", entries, err)
	}
	for _, name := range []string{"", "..", ".x", "a/b/c", "a/", "/a", "a/..", "a b", "x~", "x.swp"} {
		if err := dir.Set(name, nil); err == nil {
			t.Errorf("Set accepted the invalid name %q", name)
		}
		if err := dir.Remove(name); err == nil {
			t.Errorf("Remove accepted the invalid name %q", name)
		}
	}
}

func TestDirEditErrors(t *testing.T) {
	dir := store.Dir{Path: filepath.Join(t.TempDir(), "store")}
	if err := dir.Set("aws/key", nil); err != nil {
		t.Fatal(err)
	}
	missing := store.Dir{Path: dir.Path + "/missing/store"}
	_, listErr := missing.List()
	for _, c := range []struct {
		err  error
		want string
	}{
		{listErr, "cannot read the store: " + missing.Path + " does not exist"},
		{missing.Remove("A"), "cannot remove A: " + missing.Path + " does not exist"},
		{missing.Set("A", nil), "cannot write A: cannot create the directory " + missing.Path + ": no such file or directory"},
		{dir.Remove("A"), "cannot remove A: the store has no such secret"},
		{dir.Remove("aws/key/x"), "invalid name: use NAME or BUNDLE/FIELD; each part must match " + schema.SecretNamePattern},
		{dir.Remove("aws/none"), "cannot remove aws/none: the store has no such secret"},
		{dir.Set("aws", nil), "cannot write aws: " + dir.Path + "/aws: file exists"},
		{dir.Set("x.swp", nil), "invalid name: the sidecar ignores the name x.swp, because editors create temporary files with such names"},
	} {
		if c.err == nil || c.err.Error() != c.want {
			t.Errorf("got the error %v; want %s", c.err, c.want)
		}
	}
}
