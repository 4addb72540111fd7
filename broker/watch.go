package broker

import (
	"slices"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// versions are the allowed secrets that there are, by the generation that
// brought their value. They are numbers: a watcher keeps no value, and nothing
// made of one.
type versions map[schema.SecretName]uint64

func (p *project) versions(snap *snapshot) versions {
	now := versions{}
	if snap == nil {
		return now
	}
	for _, name := range p.manifest.Load().Allowlist() {
		if s, ok := snap.secrets[name]; ok {
			now[name] = s.since
		}
	}
	return now
}

// changed returns the names that came, went or have another value in now,
// sorted.
func (before versions) changed(now versions) []schema.SecretName {
	var names []schema.SecretName
	for name, since := range now {
		if before[name] != since {
			names = append(names, name)
		}
	}
	for name := range before {
		if _, ok := now[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// watch answers, and then writes a line whenever what the project may have has
// changed since the last, until the connection ends. While a line is being
// written no other is made: what happens meanwhile is in the one after it, so a
// slow client gets fewer lines and costs no memory.
func (p *project) watch(s *session) reply {
	// The client says nothing more. What it does is end, or break that rule. A
	// drain's deadline may be lifted here; its channel is what counts.
	s.conn.SetReadDeadline(time.Time{})
	ended := make(chan error, 1)
	go func() { ended <- s.lines.Await() }() // ended and awaited below
	waited := false
	defer func() {
		if !waited {
			s.conn.SetReadDeadline(time.Unix(1, 0))
			<-ended
		}
	}()

	told, generation, moved := p.look()
	r := answer(schema.WatchResponse{OK: true, Generation: generation})
	for s.write(r) {
		var names []schema.SecretName
		for len(names) == 0 {
			select {
			case <-moved:
			case <-p.endpoint.draining:
				return hangUp
			case err := <-ended:
				waited = true
				if err != nil {
					return hangUp
				}
				r = refuse(schema.CodeProtocolError, "watch: the connection takes no request behind it")
				r.end = true
				return r
			}
			before := told
			told, generation, moved = p.look()
			names = before.changed(told)
		}
		r = answer(schema.ChangedEvent{Event: schema.EventChanged, Generation: generation, Names: names})
	}
	return hangUp
}

// look returns what there is for the project, the generation that is loaded,
// and a channel that is closed when it is time to look again.
func (p *project) look() (versions, uint64, <-chan struct{}) {
	snap, moved := p.server.keyring.acquire()
	defer p.server.keyring.release(snap)
	if snap == nil {
		return versions{}, 0, moved
	}
	return p.versions(snap), snap.generation, moved
}
