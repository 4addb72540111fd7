package sidecar

import "time"

// A change is read once nothing has moved for quiet, and latest that long after
// the first event.
const (
	quiet  = 200 * time.Millisecond
	latest = 2 * time.Second
)

// A settling is the wait for quiet after a change. Its timer's channel says that
// it is over.
type settling struct {
	timer    *time.Timer
	deadline time.Time // zero: nothing moved since it was over
}

// newSettling returns one that is over at once: the first read is now.
func newSettling() *settling { return &settling{timer: time.NewTimer(0)} }

func (s *settling) moved() {
	if s.deadline.IsZero() {
		s.deadline = time.Now().Add(latest)
	}
	s.timer.Reset(min(quiet, time.Until(s.deadline)))
}

func (s *settling) over() { s.deadline = time.Time{} }
