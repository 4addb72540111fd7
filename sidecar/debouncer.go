package sidecar

import "time"

// quietPeriod and maxDelay control when the sidecar reads a changed store. The sidecar
// reads the store after no file event has arrived for quietPeriod, because several files can
// belong to one change. The sidecar need not wait for the end of a write, because package store
// does not use a file that is not complete. If the file events do not stop, the sidecar reads the
// store maxDelay after the first file event.
const (
	quietPeriod = 20 * time.Millisecond
	maxDelay    = 200 * time.Millisecond
)

// A debouncer delays a read of the store until file events stop arriving. When the timer of
// the debouncer fires, the sidecar must call reset and then read the store.
type debouncer struct {
	timer *time.Timer
	// deadline is the time at which the timer fires even if more file events arrive. It is
	// zero if no file event has arrived since the last reset.
	deadline time.Time
}

// newDebouncer returns a debouncer. Its timer fires immediately, so that the sidecar reads
// the store for the first time.
func newDebouncer() *debouncer { return &debouncer{timer: time.NewTimer(0)} }

// trigger restarts the quiet period. Call trigger for each file event.
func (d *debouncer) trigger() {
	if d.deadline.IsZero() {
		d.deadline = time.Now().Add(maxDelay)
	}
	d.timer.Reset(min(quietPeriod, time.Until(d.deadline)))
}

// retryAfter makes the timer fire after delay. If a file event has arrived since the last reset,
// the timer fires soon in any case, and retryAfter has no effect.
func (d *debouncer) retryAfter(delay time.Duration) {
	if d.deadline.IsZero() {
		d.timer.Reset(delay)
	}
}

// reset forgets all previous file events. The debouncer then treats the next event as the
// first event.
func (d *debouncer) reset() { d.deadline = time.Time{} }
