package sidecar

import "time"

// A changed store is read when no event has arrived for quietPeriod. If events do not
// stop, the store is read maxDelay after the first event.
const (
	quietPeriod = 200 * time.Millisecond
	maxDelay    = 2 * time.Second
)

// A debouncer delays reading a store until no more events arrive. When the timer
// fires, the caller must call reset and then read the store.
type debouncer struct {
	timer    *time.Timer
	deadline time.Time // zero if no event arrived since the last reset
}

// newDebouncer returns a debouncer that fires immediately, for the first read.
func newDebouncer() *debouncer { return &debouncer{timer: time.NewTimer(0)} }

// trigger must be called for each event. It restarts the quiet period.
func (d *debouncer) trigger() {
	if d.deadline.IsZero() {
		d.deadline = time.Now().Add(maxDelay)
	}
	d.timer.Reset(min(quietPeriod, time.Until(d.deadline)))
}

// reset forgets the events so far. The next event is then the first one.
func (d *debouncer) reset() { d.deadline = time.Time{} }
