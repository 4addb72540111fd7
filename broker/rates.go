package broker

import (
	"math"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/time/rate"
)

// rates are what one project may ask: a limit belongs to one project, so nobody
// else feels it.
type rates struct {
	requests  *rate.Limiter
	refusals  *rate.Limiter // names asked for that are refused, or are not there
	said      rate.Sometimes
	strangers rate.Sometimes // of those whose uid may not connect
}

// newRates takes requests and refusals a second; 0 is no limit.
func newRates(requests, refusals float64) *rates {
	limiter := func(perSecond float64, burst int) *rate.Limiter {
		if perSecond == 0 {
			return rate.NewLimiter(rate.Inf, 0)
		}
		return rate.NewLimiter(rate.Limit(perSecond), max(1, int(math.Ceil(perSecond))*burst))
	}
	return &rates{
		requests: limiter(requests, schema.RequestBurst), refusals: limiter(refusals, schema.RefusalBurst),
		said:      rate.Sometimes{Interval: time.Second},
		strangers: rate.Sometimes{First: schema.StrangersRecorded, Interval: time.Second},
	}
}

// over takes n from a limiter and reports whether that was too much, and after
// how many seconds it would not be. More than the limiter can ever have counts
// as all that it can have.
func over(l *rate.Limiter, n int) (seconds int, is bool) {
	if l.Limit() == rate.Inf {
		return 0, false
	}
	now := time.Now()
	r := l.ReserveN(now, min(n, l.Burst()))
	delay := r.DelayFrom(now)
	if delay == 0 {
		return 0, false
	}
	r.CancelAt(now)
	return int(math.Ceil(delay.Seconds())), true
}

// limited refuses what is too much, and records it once a second: an event for
// each would fill the audit log with them.
func (p *project) limited(s *session, seconds int, what string) reply {
	p.rates.said.Do(func() {
		record(p.server.audit, schema.RateLimited{
			EventHeader: header(schema.EventRateLimited), EventCaller: s.caller.event(), Project: p.name,
		})
	})
	return refuseAfter(schema.CodeRateLimited, seconds, "project %s asks too often: %s", p.name, what)
}

// tooMany refuses a lookup's answer where too many names of it, and of those
// before it, are denied or not there: whoever asks like that is guessing.
func (p *project) tooMany(s *session, found lookup) (reply, bool) {
	refused := 0
	for _, one := range found.each {
		if one.code == schema.CodeDenied || one.code == schema.CodeNotFound {
			refused++
		}
	}
	if refused == 0 {
		return reply{}, false
	}
	seconds, is := over(p.rates.refusals, refused)
	if !is {
		return reply{}, false
	}
	p.server.keyring.release(found.snapshot)
	return p.limited(s, seconds, "names that it may not have, or that are not there"), true
}
