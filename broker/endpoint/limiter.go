package endpoint

import (
	"math"
	"sync/atomic"
	"time"
)

// A Limiter is a token bucket. It is safe for concurrent use.
//
// One call can take more units than are left, and more than one burst. The number of units is
// then negative, and later calls must wait until the missing units have been restored. So
// over a long time, the average number of units per second does not exceed the limit.
type Limiter struct {
	perUnit float64 // time until one unit is restored, in nanoseconds; 0 if there is no limit
	burst   int64   // time until a whole burst is restored, in nanoseconds
	start   time.Time

	// emptyAt is the time at which the limiter has zero units, in nanoseconds after start. If this
	// time is in the past, units have been restored since then, up to one burst. If it is in the
	// future, units are missing until then.
	emptyAt atomic.Int64
}

// maxTime is the maximum of emptyAt, 146 years after start. Longer times could overflow.
const maxTime = 1 << 62

// NewLimiter returns a limiter that allows perSecond units per second. Its burst is
// perSecond, rounded up, times burstSeconds. If perSecond is 0, there is no limit.
func NewLimiter(perSecond float64, burstSeconds int) *Limiter {
	l := &Limiter{start: time.Now()}
	if perSecond > 0 {
		l.perUnit = float64(time.Second) / perSecond
		l.burst = l.cost(math.Ceil(perSecond) * float64(burstSeconds))
		l.emptyAt.Store(-l.burst)
	}
	return l
}

// cost returns the time until n units are restored, in nanoseconds.
func (l *Limiter) cost(n float64) int64 { return int64(min(math.Ceil(n*l.perUnit), maxTime/2)) }

// emptyAfter returns the new emptyAt if units with the given cost are taken at the time
// now. All times are in nanoseconds.
func (l *Limiter) emptyAfter(emptyAt, now, cost int64) int64 {
	return min(max(emptyAt, now-l.burst)+cost, maxTime)
}

// Reserve takes n units at the time now. It returns how long the calling goroutine must wait
// before it uses the units. If there is no limit, Reserve takes no units and returns 0.
func (l *Limiter) Reserve(n int, now time.Time) (wait time.Duration) {
	if l.perUnit == 0 || n <= 0 { // n is 0 for a short first request, because payForConnection has already counted it
		return 0
	}
	at, cost := int64(now.Sub(l.start)), l.cost(float64(n))
	for {
		emptyAt := l.emptyAt.Load()
		after := l.emptyAfter(emptyAt, at, cost)
		if l.emptyAt.CompareAndSwap(emptyAt, after) {
			return time.Duration(max(0, after-at))
		}
	}
}

// Return gives back n units that Reserve has taken.
func (l *Limiter) Return(n int) {
	if l.perUnit != 0 && n > 0 {
		l.emptyAt.Add(-l.cost(float64(n)))
	}
}

// RetryAfter returns the number of seconds after which one unit is left, rounded up. It takes no
// unit. If a unit is left now or there is no limit, RetryAfter returns 0.
func (l *Limiter) RetryAfter() (seconds int) {
	if l.perUnit == 0 {
		return 0
	}
	at := int64(time.Since(l.start))
	wait := l.emptyAfter(l.emptyAt.Load(), at, l.cost(1)) - at
	return int(math.Ceil(time.Duration(max(0, wait)).Seconds()))
}

// Exceeded takes n units if at least n units are left. If n is more than one burst, Exceeded
// takes n units if a full burst is left. If too few units are left, Exceeded takes no units and
// returns true, with the number of seconds after which the client can try again. If there is no
// limit, Exceeded takes no units and returns false.
func (l *Limiter) Exceeded(n int) (retryAfter int, exceeded bool) {
	if l.perUnit == 0 || n == 0 {
		return 0, false
	}
	at, cost := int64(time.Since(l.start)), l.cost(float64(n))
	for {
		emptyAt := l.emptyAt.Load()
		if wait := l.emptyAfter(emptyAt, at, min(cost, l.burst)) - at; wait > 0 {
			return int(math.Ceil(time.Duration(wait).Seconds())), true
		}
		if l.emptyAt.CompareAndSwap(emptyAt, l.emptyAfter(emptyAt, at, cost)) {
			return 0, false
		}
	}
}
