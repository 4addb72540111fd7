package sidecar

import "time"

// A change is read once there was no event for quietPeriod, but not later than
// maxDelay after the first event.
const (
	quietPeriod = 200 * time.Millisecond
	maxDelay    = 2 * time.Second
)

// A debouncer delays the read of a store until its events have stopped. When its
// timer fires, the caller calls reset and reads.
type debouncer struct {
	timer    *time.Timer
	deadline time.Time // zero if there was no event since the last reset
}

// newDebouncer returns a debouncer that fires at once, for the first read.
func newDebouncer() *debouncer { return &debouncer{timer: time.NewTimer(0)} }

// trigger restarts the quiet period.
func (d *debouncer) trigger() {
	if d.deadline.IsZero() {
		d.deadline = time.Now().Add(maxDelay)
	}
	d.timer.Reset(min(quietPeriod, time.Until(d.deadline)))
}

// reset makes the next trigger the first one.
func (d *debouncer) reset() { d.deadline = time.Time{} }
