package store

import (
	"context"
	"errors"
	"maps"
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
