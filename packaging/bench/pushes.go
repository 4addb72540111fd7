package main

import (
	"fmt"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// A pushRow is a push of secrets that replaces all secrets.
type pushRow struct {
	name   string
	count  int     // the number of secrets
	full   bool    // whether the push has the maximum length (schema.MaxPush)
	atMost float64 // goal for the median, in us; 0 if there is no goal
}

var pushRows = []pushRow{
	{name: "push of 10 secrets", count: 10},
	{name: "push of 1 MiB in 1 secret", count: 1, full: true, atMost: 1500},
	{name: "push of 1 MiB in 1,000 secrets", count: 1000, full: true, atMost: 1500},
	{name: "push of 5,000 secrets", count: 5000, atMost: 3000},
}

// secrets returns the names and values of a push. All values depend on version.
func (p pushRow) secrets(version string) (names, values []string) {
	_, short := secrets()
	for i := range p.count {
		names, values = append(names, secretName(i)), append(values, version+short[0][1:])
	}
	if p.full {
		room := schema.MaxPush - (len(encodePush(names, values)) - 1)
		for i := range values {
			values[i] += strings.Repeat(version, room/p.count)
		}
		values[0] += strings.Repeat(version, room%p.count)
	}
	return names, values
}

// measurePushes measures pushes. Each push changes all values. After the pushes, keyhatchd
// must return the last value.
func (b *bench) measurePushes(s *servers, place placement) error {
	for _, p := range pushRows {
		var lastValues [2]string
		loads := make([]load, len(s.pushes))
		for i, c := range s.pushes {
			loads[i] = load{Sockets: []string{c.pushSocket}, Window: 1, CPU: place.client}
			if c.pushReply == nil {
				loads[i].PushCount = p.count
			}
		}
		for version := range lastValues {
			names, values := p.secrets(string(rune('A' + version)))
			lastValues[version] = values[0]
			for i, c := range s.pushes {
				loads[i].Requests = append(loads[i].Requests, c.encodePush(names, values))
				loads[i].Replies = append(loads[i].Replies, c.pushReply)
			}
		}
		measured, err := b.takeTurns(s.pushes, loads, s.broker.waitForNoConnections)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		last := measured[keyhatchd][b.rounds-1]
		if err := roundTrip(s.broker.socket, exchange{s.broker.get[0].request, getReply(lastValues[(last.Sent-1)%2])}); err != nil {
			return fmt.Errorf("getting a secret after %s: %w", p.name, err)
		}
		s.broker.sent++
		var goals []goal
		if p.atMost > 0 && place.pinned() {
			goals = []goal{{Measure: p50, AtMost: p.atMost}}
		}
		b.add(newRow(p.name, place, entries(s.pushes, measured), goals))
	}
	return s.restore()
}
