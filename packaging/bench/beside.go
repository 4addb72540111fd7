package main

import (
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// measureGetsBesidePushes measures gets while another client pushes 1 MiB again and again. Only
// gets that overlap a push are measured. The pushes contain the secrets of the gets too.
func (b *bench) measureGetsBesidePushes(f *field, place placement) error {
	var all []*contender
	for _, c := range f.gets {
		if c.encodePush != nil {
			all = append(all, c)
		}
	}
	names, values := secrets()
	names, values = append(names, "LARGE"), append(values, "")
	values[len(values)-1] = strings.Repeat("x", schema.MaxPush-(len(encodePush(names, values))-1))
	var alone, beside []load
	for _, c := range all {
		l := newLoad(c.socket, place.client, c.get)
		alone = append(alone, l)
		l.Duration = 3 * b.duration
		pushes := newLoad(c.pushSocket, place.client, []exchange{{c.encodePush(names, values), c.pushReply}})
		pushes.Pause = 2 * time.Millisecond
		if c.pushReply == nil {
			pushes.PushCount = len(names)
		}
		l.Beside = &pushes
		beside = append(beside, l)
	}
	without, err := b.takeTurns(all, alone, f.broker.waitForNoConnections)
	if err != nil {
		return err
	}
	with, err := b.takeTurns(all, beside, f.broker.waitForNoConnections)
	if err != nil {
		return err
	}
	var list []entry
	for _, c := range all {
		for i := range b.rounds {
			with[c.name][i].Delay = with[c.name][i].P99 - without[c.name][i].P99
			if c.name == keyhatchd {
				f.broker.sent += with[c.name][i].Sent + without[c.name][i].Sent
			}
		}
		pushed := c.name + " and pushes"
		list = append(list, entry{c.name, without[c.name], c.name}, entry{pushed, with[c.name], c.name})
	}
	b.add(newRow("get while another client pushes 1 MiB (ratios to the same server without pushes)", place, list, []goal{{Server: keyhatchd + " and pushes", Measure: delay, AtMost: 1000}}))
	return nil
}
