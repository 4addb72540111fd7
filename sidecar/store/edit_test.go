package store_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

func TestDirSetRemoveAndList(t *testing.T) {
	dir := store.Dir{Path: filepath.Join(t.TempDir(), "new")}
	for _, want := range []bool{true, false} {
		if created, err := dir.Create(); err != nil || created != want {
			t.Fatalf("Create returned %t, error %v; want %t", created, err, want)
		}
	}
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
	dir := store.Dir{Path: t.TempDir()}
	if err := dir.Set("aws/key", []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := dir.Set("PLAIN", nil); err != nil {
		t.Fatal(err)
	}
	missing := store.Dir{Path: dir.Path + "/missing/store"}
	_, listErr := missing.List()
	_, createErr := missing.Create()
	for _, c := range []struct {
		err  error
		want string
	}{
		{listErr, "cannot read the store: " + missing.Path + " does not exist"},
		{missing.Remove("A"), "cannot remove A: " + missing.Path + " does not exist"},
		{createErr, "cannot create the directory " + missing.Path + ": no such file or directory"},
		{missing.Set("A", nil), "cannot write A: " + missing.Path + " does not exist"},
		{dir.Remove("A"), "cannot remove A: the store has no such secret"},
		{dir.Remove("aws/key/x"), "invalid name: use NAME or BUNDLE/FIELD; each part must match " + schema.SecretNamePattern},
		{dir.Remove("aws/none"), "cannot remove aws/none: the store has no such secret"},
		{dir.Set("aws", nil), "cannot write aws: aws is a bundle and not a secret"},
		{dir.Set("PLAIN/x", nil), "cannot write PLAIN/x: PLAIN is a secret and not a bundle"},
		{dir.SetBundle("PLAIN", map[string][]byte{"x": nil}), "cannot write PLAIN: PLAIN is a secret and not a bundle"},
		{dir.SetBundle("aws", map[string][]byte{"x": nil}), "cannot write aws: the bundle also contains key"},
		{dir.Set("aws/key", []byte("\xff")), "cannot write aws/key: a field of a bundle must be valid UTF-8: store the binary value as a separate secret"},
		{dir.SetBundle("new", map[string][]byte{"x": []byte("\xff")}), "cannot write new: a field of a bundle must be valid UTF-8: store the binary value as a separate secret"},
		{dir.SetBundle("new", map[string][]byte{"../x": nil}), "cannot write new: invalid name: use NAME or BUNDLE/FIELD; each part must match " + schema.SecretNamePattern},
		{dir.Set("x.swp", nil), "invalid name: the sidecar ignores the name x.swp, because editors create temporary files with such names"},
	} {
		if c.err == nil || c.err.Error() != c.want {
			t.Errorf("got the error %v; want %s", c.err, c.want)
		}
	}
}

// TestSetBundleReplacesAllFieldsInOneStep reads a bundle while another goroutine writes the
// bundle. The two fields of the bundle must always belong together.
func TestSetBundleReplacesAllFieldsInOneStep(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	set := func(i int) error {
		text := []byte(strconv.Itoa(i))
		return dir.SetBundle("aws", map[string][]byte{"id": text, "key": text})
	}
	if err := set(0); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		for i := range 100 {
			if err := set(i); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			if entries, err := os.ReadDir(dir.Path); err != nil || len(entries) != 1 {
				t.Errorf("the directory contains the entries %v, error %v; want only aws", entries, err)
			}
			return
		default:
		}
		// While a process has this directory open, the directory keeps its files.
		bundle, err := os.OpenRoot(dir.Path + "/aws")
		if err != nil {
			t.Fatal(err)
		}
		id, idErr := bundle.ReadFile("id")
		key, keyErr := bundle.ReadFile("key")
		bundle.Close()
		if idErr == nil && keyErr == nil && string(id) != string(key) {
			t.Fatalf("the fields are %q and %q", id, key)
		}
	}
}

// TestEditRemovesLeftoversOfKilledEdit checks that a later edit removes the files of an edit
// that was killed, and that no edit removes the files of a running edit.
func TestEditRemovesLeftoversOfKilledEdit(t *testing.T) {
	dir := store.Dir{Path: t.TempDir()}
	for _, name := range []string{".keyhatch-edit-1", ".keyhatch-edit-2/bundle/key", "aws/.keyhatch-edit-3"} {
		storetest.WriteFile(filepath.Join(dir.Path, name), storetest.Tripwire)
	}
	for _, name := range []string{"A", "aws/id"} {
		if err := dir.Set(name, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, pattern := range []string{"/.k*", "/*/.k*"} {
		if left, err := filepath.Glob(dir.Path + pattern); err != nil || len(left) > 0 {
			t.Errorf("the leftovers %v are still in the store, error %v", left, err)
		}
	}
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			if err := dir.Set("B"+strconv.Itoa(i), nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}
