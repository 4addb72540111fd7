package main

import (
	"context"
	"fmt"

	"github.com/keyhatch/keyhatch/schema"
)

// A getRow is one way to get secrets.
type getRow struct {
	name        string
	connections int
	fresh       bool
	window      int
	many        bool   // get-many of all secrets instead of get
	unpinned    bool   // also measure with processes that are not pinned
	goals       []goal // goals for keyhatchd if client and server share a processor, or are not pinned
}

var getRows = []getRow{
	{name: "get on one warm connection", goals: []goal{
		{Measure: p50, Baseline: goEcho, AtMost: 1.15},
		{Measure: p99, Baseline: goEcho, AtMost: 1.5},
		{Measure: cpu, Baseline: goEcho, AtMost: 1.25},
	}},
	{name: "get, each on a new connection", fresh: true, goals: []goal{{Measure: p50, Baseline: goEcho, AtMost: 1.2}}},
	{name: "get on 64 connections", connections: schema.MaxProjectConnections, unpinned: true, goals: []goal{{Measure: rate, Baseline: goEcho, AtLeast: 0.85}}},
	{name: "get, 32 in flight on one connection (latency of all 32)", window: 32, unpinned: true, goals: []goal{{Measure: rate, Baseline: redis, AtLeast: 0.7}}},
	{name: "get-many of 10 secrets", many: true},
}

// measureGets measures each row of getRows with each server.
func (b *bench) measureGets(s *servers, place placement) error {
	for _, g := range getRows {
		if !place.pinned() && !g.unpinned {
			continue
		}
		measured, err := b.takeTurns(s.gets, g.loads(s.gets, place.client), s.broker.waitForNoConnections)
		if err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		for _, r := range measured[keyhatchd] {
			if g.many {
				r.Sent *= 10
			}
			s.broker.sent += r.Sent
		}
		goals := g.goals
		if place.server != place.client {
			goals = nil
		}
		b.add(newRow(g.name, place, entries(s.gets, measured), goals))
	}
	return nil
}

func (g getRow) loads(all []*contender, cpu int) (loads []load) {
	for _, c := range all {
		x := c.get
		if g.many {
			x = c.getMany
		}
		l := newLoad(c.socket, cpu, x)
		l.Fresh, l.Window = g.fresh, max(g.window, 1)
		for len(l.Sockets) < g.connections {
			l.Sockets = append(l.Sockets, c.socket)
		}
		loads = append(loads, l)
	}
	return loads
}

// waitForNoConnections waits until the broker has released all connections to projects. A new
// client could otherwise exceed the limit on connections.
func (k *keyhatch) waitForNoConnections() error {
	return k.process.waitFor(func() error {
		status, err := k.admin.Status(context.Background())
		for _, p := range status.Projects {
			if p.Connections > 0 {
				return fmt.Errorf("project %s still has %d connections", p.Name, p.Connections)
			}
		}
		return err
	})
}
