package broker

import "time"

// checkInterval is the time between two checks of the sockets of all projects.
const checkInterval = time.Second

// maxRepairDelay is the maximum delay before the broker creates the socket of the same
// project again. Because of the delay, a container that deletes its socket file again and
// again cannot make the broker busy.
const maxRepairDelay = time.Minute

// A backoff limits how often the broker creates the socket of a project again, or tries
// again to serve an unserved project.
type backoff struct {
	last  time.Time     // time of the last attempt
	delay time.Duration // minimum time from last to the next attempt
}

// mayTry reports whether the broker may try again now. If so, mayTry doubles the delay,
// from checkInterval up to maxRepairDelay. If the last attempt was more than 5 *
// maxRepairDelay ago, the delay is checkInterval again.
func (b *backoff) mayTry(now time.Time) bool {
	since := now.Sub(b.last)
	if since < b.delay {
		return false
	}
	if since > 5*maxRepairDelay {
		b.delay = 0
	}
	b.last, b.delay = now, min(max(2*b.delay, checkInterval), maxRepairDelay)
	return true
}
