package cli

import (
	"strings"
	"testing"
	"testing/synctest"
)

// A blockedWriter blocks in Write until unblock is closed.
type blockedWriter struct {
	unblock chan struct{}
	text    strings.Builder
}

func (r *blockedWriter) Write(p []byte) (int, error) {
	<-r.unblock
	return r.text.Write(p)
}

// TestLogDropsLinesWhenQueueIsFull writes more lines than the queue can contain while the
// underlying writer is blocked. Write and flush must return. After the writer is unblocked, the
// lines in the queue and a later line must be written.
func TestLogDropsLinesWhenQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &blockedWriter{unblock: make(chan struct{})}
		w := newLossyWriter(r)
		for range 3 * logQueueSize {
			if n, err := w.Write([]byte("line\n")); n != 5 || err != nil {
				t.Fatal(n, err)
			}
		}
		w.flush() // flush must return although the queue is full
		close(r.unblock)
		synctest.Wait()
		w.Write([]byte("last\n"))
		w.flush()
		if n := strings.Count(r.text.String(), "line\n"); n < logQueueSize || n > logQueueSize+1 || !strings.HasSuffix(r.text.String(), "last\n") {
			t.Errorf("%d lines were written, want %d or %d lines and then the last line", n, logQueueSize, logQueueSize+1)
		}
		close(w.lines)
	})
}
