package main

import (
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// besidePushes is appended to a server's name in the results of gets that ran at the same time
// as pushes.
const besidePushes = " and pushes"

// measureGetsBesidePushes measures gets while another client pushes 1 MiB again and again, and
// compares them with gets without pushes. While the other client pushes, only gets that overlap
// a push are measured. Each push also contains the secrets that the gets request.
func (b *bench) measureGetsBesidePushes(s *servers, place placement) error {
	names, values := secrets()
	names, values = append(names, "LARGE"), append(values, "")
	values[len(values)-1] = strings.Repeat("x", schema.MaxPush-(len(encodePush(names, values))-1))

	// Each contender that can receive pushes is measured twice: without and with pushes.
	var all []*contender
	var loads []load
	var list []entry
	for _, c := range s.gets {
		if c.encodePush == nil {
			continue
		}
		alone := newLoad(c.socket, place.client, c.get)
		pushes := newLoad(c.pushSocket, place.client, []exchange{{c.encodePush(names, values), c.pushReply}})
		pushes.Pause = 2 * time.Millisecond
		if c.pushReply == nil {
			pushes.PushCount = len(names)
		}
		beside, disturbed := alone, *c
		beside.Beside, beside.Duration = &pushes, 3*b.duration
		disturbed.name += besidePushes
		all, loads = append(all, c, &disturbed), append(loads, alone, beside)
		list = append(list, entry{server: c.name, baseline: c.name}, entry{server: disturbed.name, baseline: c.name})
	}
	measured, err := b.takeTurns(all, loads, s.broker.waitForNoConnections)
	if err != nil {
		return err
	}
	for i, e := range list {
		rounds, without := measured[e.server], measured[e.baseline]
		for round := range rounds {
			rounds[round].Delay = rounds[round].P99 - without[round].P99
			if e.baseline == keyhatchd {
				s.broker.sent += rounds[round].Sent
			}
		}
		list[i].measured = rounds
	}
	b.add(newRow("get while another client pushes 1 MiB (ratios to the same server without pushes)", place, list,
		[]goal{{Server: keyhatchd + besidePushes, Measure: delay, AtMost: 1000}}))
	return nil
}
