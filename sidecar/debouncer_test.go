package sidecar

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestDebouncerFiresAfterQuietPeriod: one change is read after quietPeriod; changes that never stop are
// read maxDelay after the first, and again maxDelay after the next.
func TestDebouncerFiresAfterQuietPeriod(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []time.Duration // after the beginning
		fired  []time.Duration
	}{
		{"one", []time.Duration{0}, []time.Duration{quietPeriod}},
		{"three close together", []time.Duration{0, quietPeriod / 2, quietPeriod}, []time.Duration{2 * quietPeriod}},
		{"two apart", []time.Duration{0, 3 * quietPeriod}, []time.Duration{quietPeriod, 4 * quietPeriod}},
		{"without an end", eventTimes(quietPeriod/2, 2*maxDelay), []time.Duration{maxDelay, 2*maxDelay + quietPeriod/2 - time.Millisecond}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDebouncer()
				defer d.timer.Stop()
				start := time.Now()
				<-d.timer.C
				if d.reset(); time.Since(start) != 0 {
					t.Error("the first read is not at once")
				}
				var fired []time.Duration
				events := c.events
				for len(fired) < len(c.fired) {
					var event <-chan time.Time
					if len(events) > 0 {
						event = time.After(time.Until(start.Add(events[0])))
					}
					select {
					case <-d.timer.C:
						d.reset()
						fired = append(fired, time.Since(start))
					case <-event:
						d.trigger()
						events = events[1:]
					}
				}
				for i, want := range c.fired {
					if fired[i] != want {
						t.Errorf("over after %v, want %v", fired, c.fired)
						break
					}
				}
			})
		})
	}
}

// eventTimes returns the moments of the events, all step apart. They are a
// little before the full ones, so that no two timers end at once.
func eventTimes(step, until time.Duration) (events []time.Duration) {
	for at := time.Duration(0); at <= until; at += step {
		events = append(events, max(0, at-time.Millisecond))
	}
	return events
}
