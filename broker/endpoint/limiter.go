package endpoint

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// nonReaderBursts is the number of bursts that the limit on new connections charges for a
// client that does not read. The limit restores one burst in about two seconds.
const nonReaderBursts = 10

// A Limiter is a token bucket. It is safe for concurrent use.
type Limiter struct{ bucket *rate.Limiter }

// NewLimiter returns a limiter that allows perSecond units per second. Its burst is
// perSecond, rounded up, times burstSeconds. If perSecond is 0, there is no limit.
func NewLimiter(perSecond float64, burstSeconds int) *Limiter {
	if perSecond == 0 {
		return &Limiter{rate.NewLimiter(rate.Inf, 0)}
	}
	return &Limiter{rate.NewLimiter(rate.Limit(perSecond), max(1, int(math.Ceil(perSecond))*burstSeconds))}
}

// Reserve takes n units and returns how long the caller must wait before it uses the units.
// If n is larger than the burst, Reserve takes one burst. cancel returns the units to the
// limiter.
func (l *Limiter) Reserve(n int) (wait time.Duration, cancel func()) {
	if n == 0 || l.bucket.Limit() == rate.Inf {
		return 0, func() {}
	}
	now := time.Now()
	reservation := l.bucket.ReserveN(now, min(n, l.bucket.Burst()))
	return reservation.DelayFrom(now), func() { reservation.CancelAt(now) }
}

// chargeNonReader takes nonReaderBursts bursts because a client does not read. l can be nil.
func (l *Limiter) chargeNonReader() {
	if l == nil {
		return
	}
	for range nonReaderBursts {
		l.Reserve(math.MaxInt)
	}
}

// Exceeded takes n units. If fewer than n units are left, Exceeded takes no units and
// returns true, with the number of seconds until n units are available. If n is larger than
// the burst, Exceeded uses the burst instead of n.
func (l *Limiter) Exceeded(n int) (retryAfter int, exceeded bool) {
	wait, cancel := l.Reserve(n)
	if wait == 0 {
		return 0, false
	}
	cancel()
	return int(math.Ceil(wait.Seconds())), true
}
