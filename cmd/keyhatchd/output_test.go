package main

import (
	"strings"
	"sync"
)

// An outputRecorder collects the output of a daemon. A test can wait until the output contains a
// text, or until the daemon ends.
type outputRecorder struct {
	mu      sync.Mutex
	text    strings.Builder
	changed *sync.Cond
	closed  bool
}

func newOutputRecorder() *outputRecorder {
	o := &outputRecorder{}
	o.changed = sync.NewCond(&o.mu)
	return o
}

func (o *outputRecorder) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changed.Broadcast()
	return o.text.Write(p)
}

func (o *outputRecorder) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.changed.Broadcast()
}

func (o *outputRecorder) waitFor(text string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !strings.Contains(o.text.String(), text) {
		if o.closed {
			return false
		}
		o.changed.Wait()
	}
	return true
}

func (o *outputRecorder) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
