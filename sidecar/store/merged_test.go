package store

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// A fakeStore returns its error, or a set with one secret.
type fakeStore struct {
	name string
	err  error
}

func (f *fakeStore) Read(context.Context, *Reading) (*Reading, error) {
	if f.err != nil {
		return nil, f.err
	}
	return &Reading{Set{"A": {Bytes: []byte(f.name)}}, newState()}, nil
}
func (f *fakeStore) WatchDirs() []string      { return nil }
func (f *fakeStore) IsAffectedBy(string) bool { return false }

// TestMergedIsReadAgainAfterUnstableStore checks that the reason for an unstable store is temporary, so
// that the sidecar soon reads the store again. The first read must fail, because there are no old
// secrets. Other errors are not temporary.
func TestMergedIsReadAgainAfterUnstableStore(t *testing.T) {
	other := Dir{Path: t.TempDir()}
	writeAll(t, other.Path+"/B", "1")
	for _, c := range []struct {
		err         error
		isTemporary bool
	}{
		{ErrUnstable, true}, {&unusableError{"A", ReasonOpen}, true}, {asUnstable(&childError{"gone", []error{ErrUnstable}}), true},
		{ErrReplaced, false}, {ErrCommand, false},
	} {
		fake := &fakeStore{"old", c.err}
		merged := Merged{fake, other}
		if _, err := merged.Read(t.Context(), nil); !errors.Is(err, c.err) {
			t.Errorf("the first read returned the error %v, want %v", err, c.err)
		}
		fake.err = nil
		r, err := merged.Read(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		fake.err = c.err
		for range 2 { // the second read uses the result of the first one
			if r, err = merged.Read(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if names := slices.Sorted(maps.Keys(r.Set)); !slices.Equal(names, []schema.SecretName{"A", "B"}) || string(r.Set["A"].Bytes) != "old" {
			t.Errorf("after %v, the set is %v", c.err, r.Set)
		}
		if r.WaitsForFile() != c.isTemporary || !r.Unusable["store 1"].IsStoreFailure() {
			t.Errorf("after %v, the unusable paths are %v", c.err, r.Unusable)
		}
		if r.HasReplaced() != errors.Is(c.err, ErrReplaced) {
			t.Errorf("after %v, HasReplaced returned %t", c.err, r.HasReplaced())
		}
	}
}

// A hungStore is like a store on a network file system whose server does not answer. Read does not
// return, even if its ctx ends.
type hungStore struct {
	fakeStore
	hangs chan struct{}
}

func (h *hungStore) Read(ctx context.Context, previous *Reading) (*Reading, error) {
	<-h.hangs
	return h.fakeStore.Read(ctx, previous)
}

// TestHungStoreDoesNotDelayOtherStoresForever lets one of two stores hang. Merged must use the old secrets
// of this store after readTimeout. In the first read, and if there is no other store, Merged must return
// an error.
func TestHungStoreDoesNotDelayOtherStoresForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung, other := &hungStore{fakeStore{name: "old"}, make(chan struct{})}, &otherStore{}
		merged := Merged{hung, other}
		start := time.Now()
		if _, err := merged.Read(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "did not answer within 30s") {
			t.Errorf("the first read returned the error %v", err)
		}
		if elapsed := time.Since(start); elapsed != readTimeout {
			t.Errorf("the first read ended after %v, want %v", elapsed, readTimeout)
		}
		close(hung.hangs)
		synctest.Wait() // until the goroutine of the first read has ended
		r, err := merged.Read(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		hung.hangs = make(chan struct{})
		other.removed = true
		r, err = merged.Read(t.Context(), r)
		if err != nil || len(r.Set) != 1 || string(r.Set["A"].Bytes) != "old" || !r.Unusable["store 1"].IsStoreFailure() {
			t.Errorf("got the set %v, error %v; want the old secret of the store that hangs", r, err)
		}
		if _, err := (Merged{hung}).Read(t.Context(), r); err == nil {
			t.Error("with only one store, the read returned no error")
		}
		close(hung.hangs) // ends the goroutines
	})
}

// An otherStore contains the secret B, unless it was removed.
type otherStore struct{ removed bool }

func (o *otherStore) Read(context.Context, *Reading) (*Reading, error) {
	r := newReading()
	if !o.removed {
		r.Set["B"] = Value{Bytes: []byte("1")}
	}
	return r, nil
}
func (o *otherStore) WatchDirs() []string      { return nil }
func (o *otherStore) IsAffectedBy(string) bool { return false }

// TestUnusableEntryDoesNotAdoptValueOfOtherStore removes a secret from one of two stores. The other store
// contains an unusable entry with the same name, but it has never contained a value for it. The secret must
// be removed.
func TestUnusableEntryDoesNotAdoptValueOfOtherStore(t *testing.T) {
	for name, create := range map[string]func(path string) error{
		"link":   func(path string) error { return os.Symlink("/nonexistent", path) },
		"empty":  func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"bundle": func(path string) error { writeFiles(t, path+"/key", "", path+"/id", "1"); return nil },
		"dotenv": nil, "yaml": nil, "json": nil,
	} {
		first, second := Dir{Path: t.TempDir()}, t.TempDir()
		writeFiles(t, first.Path+"/TOKEN", "old", first.Path+"/A", "1", second+"/B", "1")
		var other Store = Dir{Path: second}
		if create == nil {
			text := map[string]string{"dotenv": "TOKEN=\nB=1\n", "yaml": "TOKEN: ''\nB: 1\n", "json": `{"TOKEN": "", "B": "1"}`}[name]
			writeFiles(t, second+"/text", text)
			other = Exec{Command: "cat " + filepath.Join(second, "text"), Format: Format(name), Timeout: time.Minute}
		} else if err := create(second + "/TOKEN"); err != nil {
			t.Fatal(err)
		}
		for _, merged := range []Merged{{first, other}, {other, first}} {
			writeFiles(t, first.Path+"/TOKEN", "old")
			values := readChain(t, merged, func() { writeFiles(t, first.Path+"/TOKEN", "new!") }, func() { os.Remove(first.Path + "/TOKEN") })
			if want := []string{"old", "new!", ""}; !slices.Equal(values, want) {
				t.Errorf("%s: TOKEN had the values %q, want %q", name, values, want)
			}
		}
	}
}

// readChain reads a store once, and again after each change. It returns the value of TOKEN of each read,
// or "" if there was no such secret.
func readChain(t *testing.T, source Store, changes ...func()) (values []string) {
	t.Helper()
	var r *Reading
	for _, change := range append([]func(){func() {}}, changes...) {
		change()
		var err error
		if r, err = read(t, source, r); err != nil {
			t.Fatal(err)
		}
		values = append(values, string(r.Set["TOKEN"].Bytes))
	}
	return values
}

// TestDuplicateDoesNotAdoptValueOfOtherStore creates a name of the first store in the second store, too. While
// the name is a duplicate, the second store becomes empty or unreadable. After the first store has removed
// the name, its value must not remain as a value of the second store.
func TestDuplicateDoesNotAdoptValueOfOtherStore(t *testing.T) {
	first, second := Dir{Path: t.TempDir()}, Dir{Path: t.TempDir() + "/second"}
	remove := func() { os.Remove(first.Path + "/TOKEN") }
	duplicate := func() { writeFiles(t, second.Path+"/TOKEN", "other") }
	for name, breakSecond := range map[string]func(){
		"empty":      func() { writeFiles(t, second.Path+"/TOKEN", "") },
		"unreadable": func() { os.Rename(second.Path, second.Path+".hidden") },
	} {
		writeFiles(t, first.Path+"/TOKEN", "old", second.Path+"/B", "1")
		os.Remove(second.Path + "/TOKEN")
		merged := Merged{first, second}
		values := readChain(t, merged, duplicate, breakSecond, remove)
		if want := []string{"old", "old", "old", ""}; !slices.Equal(values, want) {
			t.Errorf("%s: TOKEN had the values %q, want %q", name, values, want)
		}
	}
}

// TestDuplicateKeepsOwner creates a name of the second store in the first store, too. While the name is a
// duplicate, the second store becomes unreadable. Merged must keep the old value of the second store.
func TestDuplicateKeepsOwner(t *testing.T) {
	first, second := Dir{Path: t.TempDir()}, Dir{Path: t.TempDir() + "/second"}
	writeFiles(t, first.Path+"/A", "1", second.Path+"/TOKEN", "old")
	values := readChain(t, Merged{first, second},
		func() { writeFiles(t, first.Path+"/TOKEN", "other") },
		func() { os.Rename(second.Path, second.Path+".hidden") },
		func() { os.Remove(first.Path + "/TOKEN") },
		func() { os.Rename(second.Path+".hidden", second.Path) },
		func() { os.Remove(second.Path + "/TOKEN") })
	if want := []string{"old", "old", "old", "old", "old", ""}; !slices.Equal(values, want) {
		t.Errorf("TOKEN had the values %q, want %q", values, want)
	}
}

// writeFiles writes a list of paths and texts. It creates missing directories.
func writeFiles(t *testing.T, pathsAndTexts ...string) {
	t.Helper()
	for i := 0; i < len(pathsAndTexts); i += 2 {
		if err := os.MkdirAll(filepath.Dir(pathsAndTexts[i]), 0o700); err != nil {
			t.Fatal(err)
		}
		writeAll(t, pathsAndTexts[i], pathsAndTexts[i+1])
	}
}
