package sidecar

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestDebouncerFiresAfterQuietPeriod checks that the debouncer's timer fires quietPeriod
// after the last event. If the events do not stop, the timer must fire maxDelay after the
// first event. After a reset, the next event counts as the first event.
func TestDebouncerFiresAfterQuietPeriod(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []time.Duration // the times of the events since the start of the test
		fired  []time.Duration // the times at which the timer must fire
	}{
		{"one event", []time.Duration{0}, []time.Duration{quietPeriod}},
		{"three events close together", []time.Duration{0, quietPeriod / 2, quietPeriod}, []time.Duration{2 * quietPeriod}},
		{"two events far apart", []time.Duration{0, 3 * quietPeriod}, []time.Duration{quietPeriod, 4 * quietPeriod}},
		{"events that do not stop", eventTimes(quietPeriod/2, 2*maxDelay), []time.Duration{maxDelay, 2*maxDelay + quietPeriod/2 - time.Millisecond}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDebouncer()
				defer d.timer.Stop()
				start := time.Now()
				<-d.timer.C
				if d.reset(); time.Since(start) != 0 {
					t.Error("the timer of a new debouncer did not fire immediately")
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
						t.Errorf("the timer of the debouncer fired after %v; want %v", fired, c.fired)
						break
					}
				}
			})
		})
	}
}

// eventTimes returns the times of events at the interval step. The first time is 0. Each
// other time is one millisecond before a multiple of step, so that an event never arrives
// at the moment when the debouncer's timer fires.
func eventTimes(step, until time.Duration) (events []time.Duration) {
	for at := time.Duration(0); at <= until; at += step {
		events = append(events, max(0, at-time.Millisecond))
	}
	return events
}
