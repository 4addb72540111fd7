package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

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
		if r.HasReplacedStore() != errors.Is(c.err, ErrReplaced) {
			t.Errorf("after %v, HasReplacedStore returned %t", c.err, r.HasReplacedStore())
		}
	}
}
