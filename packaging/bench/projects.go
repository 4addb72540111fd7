package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

const (
	manyProjects    = 1000
	manyConnections = 10_000
)

func projectName(i int) string { return fmt.Sprintf("bench-%d", i) }

// measureProjects compares a broker with one project and a broker with many projects.
func (b *bench) measureProjects() (figures []property, err error) {
	place := placements()[0]
	one, err := b.startLoaded(place.server)
	if err != nil {
		return nil, err
	}
	defer one.stop()
	many, err := b.startLoaded(place.server)
	if err != nil {
		return nil, err
	}
	defer many.stop()
	one.name, many.name = "1 project", "1,000 projects"
	before := many.process.settledMemory()
	for i := range manyProjects - 1 {
		if err := many.register(projectName(i)); err != nil {
			return nil, err
		}
	}
	figures = append(figures, newProperty("memory per project", "KiB", 4.5, value{keyhatchd, (many.process.settledMemory() - before) / (manyProjects - 1)}))

	all := []*contender{&one.contender, &many.contender}
	for _, connections := range []int{1, schema.MaxProjectConnections} {
		var loads []load
		for _, c := range all {
			l := newLoad(c.socket, place.client, c.get)
			for i := range connections - 1 {
				socket := c.socket
				if c.name == many.name {
					socket = many.projectSocket(projectName(i))
				}
				l.Sockets = append(l.Sockets, socket)
			}
			loads = append(loads, l)
		}
		measured, err := b.takeTurns(all, loads, func() error {
			if err := one.waitForNoConnections(); err != nil {
				return err
			}
			return many.waitForNoConnections()
		})
		if err != nil {
			return nil, err
		}
		name, g := "get on one warm connection", goal{Server: many.name, Measure: p50, Baseline: one.name, AtMost: 1.1}
		if connections > 1 {
			name, g = "get on 64 connections, each to another project", goal{Server: many.name, Measure: rate, Baseline: one.name, AtLeast: 0.9}
		}
		b.add(newRow(name, place, entries(all, measured), []goal{g}))
	}
	figures = append(figures, newProperty("memory with 1 project, after gets on 64 connections", "MiB", 0, value{keyhatchd, one.process.memory() / 1024}))
	status, err := b.measureStatus(many)
	return append(figures, status...), err
}

func (b *bench) startLoaded(cpu int) (*keyhatch, error) {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return nil, err
	}
	k, err := b.startKeyhatch(dir, cpu)
	if err != nil {
		return nil, err
	}
	return k, k.pushAndRegister()
}

// measureStatus measures the operation status of the admin socket, and the command
// keyhatchctl status.
func (b *bench) measureStatus(k *keyhatch) (figures []property, err error) {
	op, err := medianTime(b.rounds*3, func() error {
		status, err := k.admin.Status(context.Background())
		if err == nil && len(status.Projects) != manyProjects {
			err = fmt.Errorf("the status contains %d projects", len(status.Projects))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	figures = []property{newProperty("time of a status request with 1,000 projects, including decoding the answer", "ms", 15, value{keyhatchd, op})}
	keyhatchctl := filepath.Join(filepath.Dir(b.keyhatchd), "keyhatchctl")
	if _, err := os.Stat(keyhatchctl); err != nil {
		return figures, nil
	}
	command, err := medianTime(b.rounds, func() error {
		out, err := exec.Command(keyhatchctl, "status", "--socket", k.pushSocket).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %.1000s", err, out)
		}
		return err
	})
	return append(figures, newProperty("command keyhatchctl status with 1,000 projects", "ms", 0, value{"keyhatchctl", command})), err
}

// medianTime calls f several times and returns the median of the times in ms.
func medianTime(times int, f func() error) (float64, error) {
	var elapsed []float64
	for range times {
		start := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		elapsed = append(elapsed, float64(time.Since(start))/float64(time.Millisecond))
	}
	return median(elapsed), nil
}
