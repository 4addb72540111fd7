package audit

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// mergeInterval is the time during which a fetchMerger adds up the counts of answers. The
// fetchMerger then records the sum as one event.
const mergeInterval = time.Second

// A fetchMerger records the answers to the clients of one project. It records the first answer to
// a uid at once, and adds up the counts of the answers to the same uid that follow within
// mergeInterval. Each project has its own fetchMerger, so that projects do not wait for each
// other.
type fetchMerger struct {
	project schema.ProjectName
	buffer  *buffer
	active  *activeMergers

	mu      sync.Mutex               // locked before activeMergers.mu and buffer.mu
	pending map[uint32]*pendingFetch // by uid; nil before the first answer
	closed  bool
}

// A pendingFetch adds up the answers to one uid that follow a recorded event. If no answer
// follows within mergeInterval, flush deletes the pendingFetch.
type pendingFetch struct {
	answers int   // number of answers since the last recorded event
	sum     Fetch // the sum of the answers since the last recorded event
	timer   *time.Timer
}

func (m *fetchMerger) add(f Fetch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	uid := f.Caller.PeerUID
	p := m.pending[uid]
	if p == nil {
		m.recordLocked(f)
		if !m.closed {
			if len(m.pending) == 0 {
				m.active.add(m)
			}
			if m.pending == nil {
				m.pending = map[uint32]*pendingFetch{}
			}
			m.pending[uid] = &pendingFetch{timer: time.AfterFunc(mergeInterval, func() { m.flush(uid) })}
		}
		return
	}
	p.answers++
	if p.answers == 1 {
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

func (m *fetchMerger) recordLocked(f Fetch) {
	m.buffer.add(item{time: time.Now(), project: m.project, fetch: f}, false)
}

// flush runs when mergeInterval has passed after the last recorded event of a uid. If there were
// answers to this uid in the meantime, flush records their sum. Otherwise, it deletes the
// pendingFetch.
func (m *fetchMerger) flush(uid uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pending[uid]
	switch {
	case p == nil: // after close
	case p.answers > 0:
		m.recordLocked(p.sum)
		p.answers = 0
		p.timer.Reset(mergeInterval)
	default:
		delete(m.pending, uid)
		if len(m.pending) == 0 {
			m.active.remove(m)
		}
	}
}

// close records all sums that are not recorded yet. After close, the fetchMerger records each
// answer at once.
func (m *fetchMerger) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, p := range m.pending {
		p.timer.Stop()
		if p.answers > 0 {
			m.recordLocked(p.sum)
		}
	}
	clear(m.pending)
}

// activeMergers contains all mergers with a pendingFetch, so that Log.Close can record their
// sums.
type activeMergers struct {
	mu      sync.Mutex
	mergers map[*fetchMerger]struct{}
}

func (a *activeMergers) add(m *fetchMerger) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mergers[m] = struct{}{}
}

func (a *activeMergers) remove(m *fetchMerger) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.mergers, m)
}

func (a *activeMergers) close() {
	a.mu.Lock()
	mergers := slices.Collect(maps.Keys(a.mergers))
	a.mu.Unlock()
	for _, m := range mergers {
		m.close()
	}
}
