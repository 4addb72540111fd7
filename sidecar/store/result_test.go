package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/keyhatch/keyhatch/sidecar/store/storetest"
)

// A fixedStore is a store whose Read returns a fixed set and error.
type fixedStore struct {
	store.Store
	set store.Set
	err error
}

func (s fixedStore) Read(context.Context) (store.Set, error) { return s.set, s.err }

// transfer writes the result of a read and reads this result.
func transfer(t *testing.T, set store.Set, readErr error) (*store.LockedSet, error) {
	t.Helper()
	var output bytes.Buffer
	if err := store.WriteResult(context.Background(), fixedStore{set: set, err: readErr}, &output); err != nil {
		t.Fatal(err)
	}
	return store.ReadResult(&output)
}

func TestResultContainsSet(t *testing.T) {
	for _, set := range []store.Set{
		{},
		{"B": textValue("x\n"), "A": {Bytes: []byte("\xff\x00"), Binary: true}, "aws": bundleValue(map[schema.SecretName]string{"key": "k"})},
		{"BIG": textValue(strings.Repeat("x", schema.MaxPush-100))},
	} {
		want, err := set.EncodePush()
		if err != nil {
			t.Fatal(err)
		}
		got, err := transfer(t, set, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.PushLine(), want) || len(got.Names()) != len(set) || !slices.IsSorted(got.Names()) {
			t.Errorf("got the names %v and a line of %d bytes; want %d sorted names and a line of %d bytes", got.Names(), len(got.PushLine()), len(set), len(want))
		}
		same, err := transfer(t, set, nil)
		if err != nil || !got.Equal(same) {
			t.Errorf("Equal returned false for two results of the same set, error %v", err)
		}
		other, err := transfer(t, store.Set{"B": textValue("y")}, nil)
		if err != nil || got.Equal(other) {
			t.Errorf("Equal returned true for the results of two sets, error %v", err)
		}
		got.Free()
		same.Free()
		other.Free()
	}
}

func TestResultContainsErrorAndItsCauses(t *testing.T) {
	causes := []error{store.ErrUnstable, fs.ErrNotExist, fs.ErrPermission}
	for _, want := range []error{
		errors.New("a file with the name \xff is bad"),
		fmt.Errorf("the store: %w", fs.ErrPermission),
		fmt.Errorf("the store: %w: %w", fs.ErrNotExist, store.ErrUnstable),
	} {
		_, got := transfer(t, nil, want)
		if got == nil || got.Error() != want.Error() {
			t.Errorf("got the error %v; want %v", got, want)
		}
		for _, cause := range causes {
			if errors.Is(got, cause) != errors.Is(want, cause) {
				t.Errorf("%v: errors.Is with %q returned %v", want, cause, errors.Is(got, cause))
			}
		}
	}
	if _, err := transfer(t, store.Set{"A": textValue(strings.Repeat("x", schema.MaxPush))}, nil); err == nil || !strings.Contains(err.Error(), "maximum size of a push") {
		t.Errorf("a set that is too large: got the error %v", err)
	}
}

// TestIncompleteResultIsAnError ends the output after each of its bytes. ReadResult must
// return an error and no part of the output.
func TestIncompleteResultIsAnError(t *testing.T) {
	var output bytes.Buffer
	if err := store.WriteResult(context.Background(), fixedStore{set: store.Set{"A": textValue(storetest.Tripwire)}}, &output); err != nil {
		t.Fatal(err)
	}
	for size := range output.Len() {
		_, err := store.ReadResult(bytes.NewReader(output.Bytes()[:size]))
		if err == nil || strings.Contains(err.Error(), storetest.Tripwire) {
			t.Errorf("the first %d bytes of a result: got the error %v", size, err)
		}
	}
}
