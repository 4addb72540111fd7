package cli

import (
	"strings"
	"testing"
	"testing/synctest"
)

// A reader takes what it is given, once it reads.
type reader struct {
	reads chan struct{}
	text  strings.Builder
}

func (r *reader) Write(p []byte) (int, error) {
	<-r.reads
	return r.text.Write(p)
}

// TestPatientWriter writes more than there is room for while nobody reads, and
// what there was room for comes in order.
func TestPatientWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{reads: make(chan struct{})}
		w := newPatientWriter(r)
		for range 3 * logQueue {
			if n, err := w.Write([]byte("line\n")); n != 5 || err != nil {
				t.Fatal(n, err)
			}
		}
		w.flush() // comes back: there is no room even for that
		close(r.reads)
		synctest.Wait()
		w.Write([]byte("last\n"))
		w.flush()
		if n := strings.Count(r.text.String(), "line\n"); n < logQueue || n > logQueue+1 || !strings.HasSuffix(r.text.String(), "last\n") {
			t.Errorf("%d lines came", n)
		}
		close(w.lines)
	})
}
