package store_test

import (
	"context"
	"testing"

	"github.com/keyhatch/keyhatch/sidecar/store"
)

// TestReadInChildReportsIncompleteResult runs a child process that exits with 0 but does not
// write a complete result. ReadInChild must return an error.
func TestReadInChildReportsIncompleteResult(t *testing.T) {
	_, err := store.ReadInChild(context.Background(), []string{"-test.run=^$"}, store.LockedReading{})
	want := "the process that reads the store has failed: the result of a read of the store is incomplete"
	if err == nil || err.Error() != want {
		t.Errorf("got the error %v; want %s", err, want)
	}
}
