package audit

import (
	"sync"
	"time"
)

// ringSize is the number of recent events that stay in memory for readers.
const ringSize = 1024

// A ring contains the last events that were written, at most ringSize. A reader stores only
// its position in the ring. Therefore a slow reader needs no additional memory and does not
// delay the writer.
type ring struct {
	mu      sync.Mutex
	entries [ringSize]entry // entry number n is at index n % ringSize
	next    uint64          // number of the next entry that add writes
	changed chan struct{}   // closed by the next call of add; nil if no reader waits for an event
}

type entry struct {
	time time.Time
	line []byte
}

func (r *ring) add(entries []entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		r.entries[r.next%ringSize] = e
		r.next++
	}
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// oldestLocked returns the number of the oldest entry in the ring.
func (r *ring) oldestLocked() uint64 { return r.next - min(r.next, ringSize) }

// newReader returns a reader that begins after the event whose time is equal to since. Without such
// an event, the reader begins with the first event whose time is after since. newReader searches
// for the equal time first, because the times of the events are not always in order: an event gets
// its time before it is added to the buffer.
func (r *ring) newReader(since time.Time) (reader *Reader, recent int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := r.oldestLocked()
	n := oldest
	for n < r.next && !r.entries[n%ringSize].time.Equal(since) {
		n++
	}
	if n < r.next {
		n++
	} else {
		for n = oldest; n < r.next && !r.entries[n%ringSize].time.After(since); n++ {
		}
	}
	return &Reader{ring: r, next: n}, int(r.next - n)
}

// A Reader returns events in the order in which they were written. It is not safe for
// concurrent use. It has no Close method, because it uses no resource that must be
// released.
type Reader struct {
	ring *ring
	next uint64
}

// Number returns the number of the next event, including the events that Next will skip. The first
// event since the start has number 1.
func (r *Reader) Number() uint64 { return r.next + 1 }

// Next returns the next event as one line with its newline. If the reader was too slow, Next
// skips the events that are no longer in memory. missed is the number of events that this call
// has skipped. If there is no event yet, line is nil, and the channel changed is closed when the
// next event is written.
func (r *Reader) Next() (line []byte, missed uint64, changed <-chan struct{}) {
	r.ring.mu.Lock()
	defer r.ring.mu.Unlock()
	if oldest := r.ring.oldestLocked(); r.next < oldest {
		missed = oldest - r.next
		r.next = oldest
	}
	if r.next < r.ring.next {
		line = r.ring.entries[r.next%ringSize].line
		r.next++
		return line, missed, nil
	}
	if r.ring.changed == nil {
		r.ring.changed = make(chan struct{})
	}
	return nil, 0, r.ring.changed
}
