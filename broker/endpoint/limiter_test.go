package endpoint

import (
	"testing"
	"time"
)

// TestReserve takes units from a limiter of 2 units per second with a burst of 4. Reserve must
// return how long the caller must wait for these units.
func TestReserve(t *testing.T) {
	l := NewLimiter(2, 2)
	for i, step := range []struct {
		seconds float64 // after the start
		units   int
		wait    time.Duration
	}{
		{0, 4, 0}, // the whole burst
		{0, 1, time.Second / 2},
		{1, 1, 0},
		{1, 10, 5 * time.Second}, // takes more than one burst
		{6, 0, 0},
		{6, 1, time.Second / 2},
		{1000, 4, 0}, // only one burst was restored
		{1000, 1, time.Second / 2},
	} {
		at := l.start.Add(time.Duration(step.seconds * float64(time.Second)))
		if wait := l.Reserve(step.units, at); wait != step.wait {
			t.Errorf("step %d: the wait is %v, want %v", i, wait, step.wait)
		}
	}
	at := l.start.Add(1000 * time.Second)
	l.Return(1)
	if wait := l.Reserve(1, at); wait != time.Second/2 {
		t.Errorf("after one unit was returned, the wait is %v", wait)
	}
}

// TestRetryAfterTakesNoUnits calls RetryAfter several times. The result must not change, because
// RetryAfter takes no units.
func TestRetryAfterTakesNoUnits(t *testing.T) {
	l := NewLimiter(0.001, 2) // a burst of 2; restores one unit in 1000 seconds
	for range 3 {
		if seconds := l.RetryAfter(); seconds != 0 {
			t.Errorf("with units left, the next unit is left after %d seconds", seconds)
		}
	}
	l.Reserve(2, time.Now())
	for range 3 {
		if seconds := l.RetryAfter(); seconds < 900 || seconds > 1000 {
			t.Errorf("without a unit left, the next unit is left after %d seconds, want about 1000", seconds)
		}
	}
	if seconds := NewLimiter(0, 2).RetryAfter(); seconds != 0 {
		t.Errorf("without a limit, the next unit is left after %d seconds", seconds)
	}
}

// TestExceeded takes units from limiters that restore almost nothing during the test. Exceeded
// must return true only if too few units are left.
func TestExceeded(t *testing.T) {
	l := NewLimiter(0.001, 10) // a burst of 10
	for i, step := range []struct {
		units    int
		exceeded bool
	}{{4, false}, {7, true}, {6, false}, {1, true}, {0, false}} {
		retryAfter, exceeded := l.Exceeded(step.units)
		if exceeded != step.exceeded || exceeded != (retryAfter > 0) {
			t.Errorf("step %d: Exceeded(%d) is %d, %v", i, step.units, retryAfter, exceeded)
		}
	}
	l = NewLimiter(0.001, 10)
	if _, exceeded := l.Exceeded(1000); exceeded {
		t.Error("a full burst does not suffice for a larger number of units")
	}
	if l.Reserve(1, time.Now()) < 900*1000*time.Second {
		t.Error("the units above the burst do not count")
	}
}

// TestExtremeLimits takes many units from limiters with very high and very low limits. No number
// must overflow, so the waits must be correct.
func TestExtremeLimits(t *testing.T) {
	for perSecond, limited := range map[float64]bool{0: false, 1e-300: true, 1e-9: true, 1e18: false, 1e300: false} {
		l := NewLimiter(perSecond, 2)
		l.Exceeded(1 << 40)
		for range 10 {
			l.Reserve(1<<40, time.Now())
		}
		if wait := l.Reserve(1, time.Now()); limited != (wait > time.Hour) {
			t.Errorf("with %g requests per second, the wait is %v", perSecond, wait)
		}
	}
}
