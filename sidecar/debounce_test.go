package sidecar

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestSettling: one change is read after quiet; changes that never stop are
// read latest after the first, and again latest after the next.
func TestSettling(t *testing.T) {
	for _, c := range []struct {
		name  string
		moves []time.Duration // after the beginning
		over  []time.Duration
	}{
		{"one", []time.Duration{0}, []time.Duration{quiet}},
		{"three close together", []time.Duration{0, quiet / 2, quiet}, []time.Duration{2 * quiet}},
		{"two apart", []time.Duration{0, 3 * quiet}, []time.Duration{quiet, 4 * quiet}},
		{"without an end", every(quiet/2, 2*latest), []time.Duration{latest, 2*latest + quiet/2 - time.Millisecond}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSettling()
				defer s.timer.Stop()
				began := time.Now()
				<-s.timer.C
				if s.over(); time.Since(began) != 0 {
					t.Error("the first read is not at once")
				}
				var over []time.Duration
				moves := c.moves
				for len(over) < len(c.over) {
					var move <-chan time.Time
					if len(moves) > 0 {
						move = time.After(time.Until(began.Add(moves[0])))
					}
					select {
					case <-s.timer.C:
						s.over()
						over = append(over, time.Since(began))
					case <-move:
						s.moved()
						moves = moves[1:]
					}
				}
				for i, want := range c.over {
					if over[i] != want {
						t.Errorf("over after %v, want %v", over, c.over)
						break
					}
				}
			})
		})
	}
}

// every returns the moments at which something moves, all step apart. They are a
// little before the full ones, so that no two timers end at once.
func every(step, until time.Duration) (moves []time.Duration) {
	for at := time.Duration(0); at <= until; at += step {
		moves = append(moves, max(0, at-time.Millisecond))
	}
	return moves
}
