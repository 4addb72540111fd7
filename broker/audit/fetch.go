package audit

import (
	"sync"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// mergeInterval is the time during which the counts of several answers are added up. The
// sum is then recorded as one event.
const mergeInterval = time.Second

// Header returns the header of an audit event. Its time is the current time.
func Header(name schema.EventName) schema.EventHeader {
	return schema.EventHeader{Time: time.Now().UTC(), Event: name}
}

// A Fetch is the content of the audit event for one answer to a client of a project. It
// contains the number of secrets in the answer and the number of requested names that were
// refused.
type Fetch struct {
	Project                   schema.ProjectName
	Caller                    schema.EventCaller
	Allowed, Denied, NotFound int
}

func (f Fetch) event() schema.SecretsFetched {
	return schema.SecretsFetched{
		EventHeader: Header(schema.EventSecretsFetched), EventCaller: f.Caller, Project: f.Project,
		Allowed: f.Allowed, Denied: f.Denied, NotFound: f.NotFound,
	}
}

// A fetchMerger adds up the counts of all answers to the same project and uid.
type fetchMerger struct {
	record func(Fetch)

	mu      sync.Mutex // locked while record runs; this cannot deadlock, because record locks no mutex
	pending map[fetchKey]*pendingFetch
	closed  bool
}

type fetchKey struct {
	project schema.ProjectName
	uid     uint32
}

// A pendingFetch adds up the answers that follow a recorded event. If no answer follows
// within mergeInterval, the pendingFetch is deleted.
type pendingFetch struct {
	sum   Fetch // the sum of all answers since the last recorded event
	timer *time.Timer
}

func newFetchMerger(record func(Fetch)) *fetchMerger {
	return &fetchMerger{record: record, pending: map[fetchKey]*pendingFetch{}}
}

func (m *fetchMerger) add(f Fetch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := fetchKey{f.Project, f.Caller.PeerUID}
	p := m.pending[key]
	if p == nil {
		m.record(f)
		m.pending[key] = &pendingFetch{timer: time.AfterFunc(mergeInterval, func() { m.flush(key) })}
		return
	}
	if p.sum.isZero() {
		p.sum = f
		return
	}
	p.sum.Allowed += f.Allowed
	p.sum.Denied += f.Denied
	p.sum.NotFound += f.NotFound
	if p.sum.Caller != f.Caller {
		p.sum.Caller.PeerPID = 0 // the sum includes answers to several processes
	}
}

func (f Fetch) isZero() bool { return f == Fetch{} }

// flush records the sum of the answers to a project and uid, if there were any answers
// since the last recorded event.
func (m *fetchMerger) flush(key fetchKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pending[key]
	if m.closed || p == nil {
		return
	}
	if p.sum.isZero() {
		delete(m.pending, key)
		return
	}
	m.record(p.sum)
	p.sum = Fetch{}
	p.timer.Reset(mergeInterval)
}

// close records all sums that are not recorded yet. Do not call add after close.
func (m *fetchMerger) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, p := range m.pending {
		p.timer.Stop()
		if !p.sum.isZero() {
			m.record(p.sum)
		}
	}
}
