package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	set      store.Set
	err      error
	previous *store.Reading // set by Read
}

func (s *fixedStore) Read(_ context.Context, previous *store.Reading) (*store.Reading, error) {
	s.previous = previous
	return &store.Reading{Set: s.set}, s.err
}

// writeResult writes the result of a read.
func writeResult(t *testing.T, s *fixedStore, previous store.LockedReading) (output *bytes.Buffer) {
	t.Helper()
	var input bytes.Buffer
	if err := previous.Write(&input); err != nil {
		t.Fatal(err)
	}
	output = &bytes.Buffer{}
	if err := store.WriteResult(context.Background(), s, &input, output); err != nil {
		t.Fatal(err)
	}
	return output
}

// transfer writes the result of a read and reads this result.
func transfer(t *testing.T, set store.Set, readErr error) (*store.LockedSet, error) {
	t.Helper()
	reading, err := store.ReadResult(writeResult(t, &fixedStore{set: set, err: readErr}, store.LockedReading{}))
	return reading.Set, err
}

func TestResultContainsSet(t *testing.T) {
	for _, set := range []store.Set{
		{},
		{"B": textValue("x\n\x00\x7f\ufffd\u2028<\\\"\ufeff"), "b": textValue(""), "N": bundleValue(nil), "A": {Bytes: []byte("\xff\x00"), Binary: true}, "aws": bundleValue(map[schema.SecretName]string{"key": "k"})},
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
		// Pass the set to the next read, which must receive it unchanged.
		next := &fixedStore{set: store.Set{}}
		writeResult(t, next, store.LockedReading{Set: got})
		if line, err := next.previous.Set.EncodePush(); err != nil || !bytes.Equal(line, want) {
			t.Errorf("the next read received a line of %d bytes, error %v; want a line of %d bytes", len(line), err, len(want))
		}
		got.Free()
		same.Free()
		other.Free()
	}
}

// TestFirstReadHasNoPreviousSet checks that a store can distinguish the first read from a read
// after an empty set.
func TestFirstReadHasNoPreviousSet(t *testing.T) {
	first := &fixedStore{set: store.Set{}}
	empty, err := store.ReadResult(writeResult(t, first, store.LockedReading{}))
	if err != nil {
		t.Fatal(err)
	}
	second := &fixedStore{set: store.Set{}}
	writeResult(t, second, empty)
	if first.previous.Set != nil || second.previous.Set == nil {
		t.Errorf("the first read received the set %v and the second read received %v; want nil and an empty set", first.previous.Set, second.previous.Set)
	}
}

// TestIncompleteInputIsAnError passes only the beginning of the input to WriteResult, in every possible
// length. WriteResult must return an error and write nothing, because the old values are missing.
func TestIncompleteInputIsAnError(t *testing.T) {
	reading, err := store.ReadResult(writeResult(t, &fixedStore{set: store.Set{"A": textValue(storetest.Tripwire)}}, store.LockedReading{}))
	if err != nil {
		t.Fatal(err)
	}
	var input, output bytes.Buffer
	if err := reading.Write(&input); err != nil {
		t.Fatal(err)
	}
	for size := range input.Len() {
		err := store.WriteResult(context.Background(), &fixedStore{set: store.Set{}}, bytes.NewReader(input.Bytes()[:size]), &output)
		if err == nil || strings.Contains(err.Error(), storetest.Tripwire) || output.Len() > 0 {
			t.Errorf("the first %d bytes of the input: got the error %v and %d bytes of output", size, err, output.Len())
		}
	}
}

func TestResultContainsErrorAndItsCauses(t *testing.T) {
	causes := []error{store.ErrUnstable, store.ErrReplaced, store.ErrCommand, fs.ErrNotExist, fs.ErrPermission}
	for _, want := range []error{
		errors.New("a file with the name \xff is bad"),
		fmt.Errorf("the store: %w", fs.ErrPermission),
		fmt.Errorf("the store: %w: %w", fs.ErrNotExist, store.ErrUnstable),
		fmt.Errorf("the store: %w", store.ErrReplaced),
		fmt.Errorf("%w: exit status 1", store.ErrCommand),
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

// TestIncompleteResultIsAnError passes only the beginning of a result to ReadResult, in every possible
// length. ReadResult must return an error that contains no secret.
func TestIncompleteResultIsAnError(t *testing.T) {
	output := writeResult(t, &fixedStore{set: store.Set{"A": textValue(storetest.Tripwire)}}, store.LockedReading{})
	for size := range output.Len() {
		_, err := store.ReadResult(bytes.NewReader(output.Bytes()[:size]))
		if err == nil || strings.Contains(err.Error(), storetest.Tripwire) {
			t.Errorf("the first %d bytes of a result: got the error %v", size, err)
		}
	}
}

// TestResultContainsPathWithInvalidUTF8 removes a store whose path is not valid UTF-8. The result must
// contain the reason with this path, and the change of the other store.
func TestResultContainsPathWithInvalidUTF8(t *testing.T) {
	dir := t.TempDir()
	ok, bad := store.Dir{Path: dir + "/ok"}, store.Dir{Path: dir + "/\xff"}
	storetest.WriteFile(ok.Path+"/A", "1")
	storetest.WriteFile(bad.Path+"/B", "1")
	var reading store.LockedReading
	read := func() {
		t.Helper()
		var input, output bytes.Buffer
		err := reading.Write(&input)
		if err == nil {
			err = store.WriteResult(t.Context(), store.Merged{ok, bad}, &input, &output)
		}
		if err == nil {
			reading, err = store.ReadResult(&output)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	read()
	if err := os.Rename(bad.Path, dir+"/gone"); err != nil {
		t.Fatal(err)
	}
	storetest.WriteFile(ok.Path+"/C", "1")
	read()
	read()
	if reason := reading.Unusable["store 2"]; len(reading.Set.Names()) != 3 || !strings.Contains(string(reason), bad.Path) {
		t.Errorf("got the names %v and the reason %q", reading.Set.Names(), reason)
	}
}
