package endpoint

import (
	"math"
	"sync"
	"time"
)

// A Limiter is a token bucket. It is safe for concurrent use.
//
// One call can take more units than are left, and more than one burst. The number of units is
// then negative, and later calls must wait until the missing units have been restored. So the
// average never exceeds perSecond units.
type Limiter struct {
	perSecond, burst float64 // perSecond is 0 if there is no limit

	mu       sync.Mutex // no other lock is locked while mu is locked
	units    float64    // guarded by mu; the number of units that were left at restored
	restored time.Time  // guarded by mu
}

// NewLimiter returns a limiter that allows perSecond units per second. Its burst is
// perSecond, rounded up, times burstSeconds. If perSecond is 0, there is no limit.
func NewLimiter(perSecond float64, burstSeconds int) *Limiter {
	burst := math.Ceil(perSecond) * float64(burstSeconds)
	return &Limiter{perSecond: perSecond, burst: burst, units: burst}
}

// Reserve takes n units and returns how long the calling goroutine must wait before it uses
// the units. cancel returns the units to the limiter.
func (l *Limiter) Reserve(n int) (wait time.Duration, cancel func()) {
	if l.perSecond == 0 {
		return 0, func() {}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restoreLocked()
	if n > 0 { // a request that already counted at the connect need not wait
		l.units -= float64(n)
		wait = l.timeUntilLocked(0)
	}
	return wait, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.units += float64(n)
	}
}

// Exceeded takes n units if at least n units are left. If n is more than one burst, it is
// enough that one full burst is left. Otherwise, Exceeded takes no units and returns true,
// with the number of seconds after which the client can try again.
func (l *Limiter) Exceeded(n int) (retryAfter int, exceeded bool) {
	if l.perSecond == 0 || n == 0 {
		return 0, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restoreLocked()
	if wait := l.timeUntilLocked(min(float64(n), l.burst)); wait > 0 {
		return int(math.Ceil(wait.Seconds())), true
	}
	l.units -= float64(n)
	return 0, false
}

// restoreLocked adds the units that were restored since the last call.
func (l *Limiter) restoreLocked() {
	now := time.Now()
	l.units = min(l.burst, l.units+l.perSecond*now.Sub(l.restored).Seconds())
	l.restored = now
}

// timeUntilLocked returns the time until the given number of units is left. The result is at
// most 146 years, because a longer time could overflow.
func (l *Limiter) timeUntilLocked(units float64) time.Duration {
	seconds := max(0, units-l.units) / l.perSecond
	return time.Duration(min(math.Ceil(seconds*float64(time.Second)), 1<<62))
}
