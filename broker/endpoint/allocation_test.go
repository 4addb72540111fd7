//go:build !race

package endpoint

import (
	"bytes"
	"io"
	"net"
	"testing"
)

// TestRequestsNeedNoAllocation sends requests one after the other, and many together. The test cannot
// run with the race detector, because sync.Pool then discards some values.
func TestRequestsNeedNoAllocation(t *testing.T) {
	handler := okHandler()
	handler.Batch = true
	handler.Limit = NewLimiter(1e9, 1)
	reply := Reply{Pieces: net.Buffers{[]byte("{\"ok\":true}\n")}, Release: func() {}}
	handler.Answer = func([]byte) Reply { return reply }
	_, path := start(t, func(s *Session) { s.Run(handler) }, false)
	c := dial(t, path)
	for _, together := range []int{1, 32} {
		requests := bytes.Repeat([]byte("{}\n"), together)
		answers := make([]byte, together*len("{\"ok\":true}\n"))
		ask := func() {
			if _, err := c.Write(requests); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, answers); err != nil {
				t.Fatal(err)
			}
		}
		// Sending several pieces needs one allocation for each system call.
		if n := testing.AllocsPerRun(1000, ask); n > 0 && together == 1 || n > 1 {
			t.Errorf("%d requests need %g allocations", together, n)
		}
	}
}
