package audit

import (
	"sync"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// mergeInterval is how long answers are added up before they are recorded.
const mergeInterval = time.Second

// Header returns the header of an event that happens now.
func Header(name schema.EventName) schema.EventHeader {
	return schema.EventHeader{Time: time.Now().UTC(), Event: name}
}

// A Fetch is the event of one answer to a project: how many of the requested
// secrets it contains, and how many it refuses.
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

// A fetchMerger adds up the answers to a project and uid.
type fetchMerger struct {
	record func(Fetch)

	mu      sync.Mutex // held while record is called; Log has no lock
	pending map[fetchKey]*pendingFetch
	closed  bool
}

type fetchKey struct {
	project schema.ProjectName
	uid     uint32
}

// A pendingFetch exists for mergeInterval after an event.
type pendingFetch struct {
	sum   Fetch // since the event
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
		p.sum.Caller.PeerPID = 0 // more than one process
	}
}

func (f Fetch) isZero() bool { return f == Fetch{} }

// flush records the sum for a project and uid.
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

// close records all sums. Nothing may be added afterwards.
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
