package audit

import (
	"sync"
	"sync/atomic"
	"time"
)

// bufferSize is the largest number of events that can wait in the buffer. If the buffer is full,
// it drops and counts new events.
const bufferSize = 4096

// maxDelay is the time for which the buffer collects events of answers to projects, before the
// writer takes these events and writes them together. If an urgent event arrives or the buffer is
// half full, the writer takes the events earlier.
const maxDelay = 50 * time.Millisecond

// A buffer collects events until the writer takes them. It then collects the next events in a
// second slice, while the writer uses the first slice. A buffer is safe for concurrent use.
type buffer struct {
	wake  chan struct{} // receives a value when the writer must take the events now
	timer *time.Timer   // calls wakeWriter maxDelay after the first event of a batch

	mu     sync.Mutex // no other mutex may be locked while mu is locked
	batch  batch
	spare  []item // an empty slice for the next batch; nil while the writer uses this slice
	closed bool

	unreported atomic.Uint64 // number of dropped events that no audit.dropped event contains yet
	dropped    atomic.Uint64 // number of all dropped events
}

// A batch contains events, in the order in which they were added to the buffer.
type batch struct {
	items  []item
	result *result // nil if no call of addAndWait waits for an event of the batch
}

type result struct {
	done    chan struct{} // closed after written was set
	written int           // number of items at the start of the batch that were written or given up
}

// finish sets the result of a batch after a write. count is the number of events that were written.
// These are the first events of the batch, apart from the events that were given up.
func (b batch) finish(count int) {
	for i := 0; i < len(b.items) && count > 0; i++ {
		if !b.items[i].givenUp {
			count--
			b.result.written = i + 1
		}
	}
	close(b.result.done)
}

func newBuffer() *buffer {
	b := &buffer{wake: make(chan struct{}, 1)}
	b.timer = time.AfterFunc(maxDelay, b.wakeWriter)
	b.timer.Stop()
	return b
}

func (b *buffer) wakeWriter() {
	select {
	case b.wake <- struct{}{}:
	default: // the channel already contains a value that wakes the writer
	}
}

func (b *buffer) countDropped(n int) {
	b.unreported.Add(uint64(n))
	b.dropped.Add(uint64(n))
}

// add adds an event. It never waits for the writer. If urgent is true, add wakes the writer at
// once. If the buffer is full or closed, add drops and counts the event.
func (b *buffer) add(added item, urgent bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addLocked(added, urgent)
}

func (b *buffer) addLocked(added item, urgent bool) (ok bool) {
	if len(b.batch.items) == bufferSize || b.closed {
		b.countDropped(1)
		return false
	}
	b.batch.items = append(b.batch.items, added)
	switch n := len(b.batch.items); {
	case urgent || n == bufferSize/2:
		b.wakeWriter()
	case n == 1:
		b.timer.Reset(maxDelay)
	}
	return true
}

// addAndWait adds an urgent event, and waits until the event is written. It returns false if the
// buffer is full or closed, if the write fails, or if the event is not written before the
// timeout.
func (b *buffer) addAndWait(added item, timeout time.Duration) bool {
	b.mu.Lock()
	index := len(b.batch.items)
	if !b.addLocked(added, true) {
		b.mu.Unlock()
		return false
	}
	if b.batch.result == nil {
		b.batch.result = &result{done: make(chan struct{})}
	}
	written := b.batch.result
	b.mu.Unlock()

	expired := time.NewTimer(timeout)
	defer expired.Stop()
	select {
	case <-written.done:
		return index < written.written
	case <-expired.C:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	// If the event is still in the buffer, mark it, so that the writer does not write it. If the
	// writer has already taken the event, the log can report an access that did not happen. A
	// missing report of an access would be worse.
	if b.batch.result == written {
		b.batch.items[index].givenUp = true
	}
	b.countDropped(1)
	return false
}

// take waits until wakeWriter is called. It then returns all events in the buffer, and reports
// whether the buffer is closed. If closed is true, do not call take again, because it could wait
// forever.
func (b *buffer) take() (taken batch, closed bool) {
	<-b.wake
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer.Stop()
	taken = b.batch
	b.batch, b.spare = batch{items: b.spare}, nil
	return taken, b.closed
}

// recycle gives the memory of a batch back to the buffer after the batch was written.
func (b *buffer) recycle(written batch) {
	clear(written.items)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spare = written.items[:0]
}

// close makes the writer take the last events. After close, the buffer drops and counts new
// events.
func (b *buffer) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.wakeWriter()
}

func (b *buffer) length() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.batch.items)
}
