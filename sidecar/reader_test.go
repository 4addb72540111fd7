package sidecar

import (
	"testing"
	"testing/synctest"

	"github.com/keyhatch/keyhatch/sidecar/store"
)

// TestCloseDoesNotWaitForBlockedRead closes a reader whose read never ends. close must return.
func TestCloseDoesNotWaitForBlockedRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := newStoreReader(store.Merged{}, nil, nil, nil)
		reader.isReading = true
		reader.close() // if close did not return, synctest would report a deadlock
	})
}
