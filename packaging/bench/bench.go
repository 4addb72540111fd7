package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// A bench contains the settings of a run.
type bench struct {
	self      string // path of this program, which also runs as the client and as the Go server
	keyhatchd string // path of the program that is measured
	cEcho     string // path of the echo server in C, or ""
	redis     string // path of redis-server, or ""
	dir       string // directory for temporary files

	rounds   int
	duration time.Duration // of one measurement

	out    io.Writer // for the tables
	report *report
}

// add prints a row and adds it to the report.
func (b *bench) add(r row) {
	r.print(b.out)
	b.report.Rows = append(b.report.Rows, r)
}

// takeTurns measures all contenders in each round. Each round begins with another contender
// than the round before. Before each measurement, takeTurns calls prepare.
func (b *bench) takeTurns(all []*contender, loads []load, prepare func() error) (map[string]series, error) {
	measured := map[string]series{}
	for round := range b.rounds {
		for i := range all {
			i = (i + round) % len(all)
			l := loads[i]
			l.ServerPID, l.Warmup = all[i].process.pid(), b.duration/5
			if l.Duration == 0 {
				l.Duration = b.duration
			}
			if err := prepare(); err != nil {
				return nil, err
			}
			r, err := b.measure(l)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", all[i].name, err)
			}
			measured[all[i].name] = append(measured[all[i].name], r)
		}
	}
	return measured, nil
}

// measure runs a load in a new process.
func (b *bench) measure(l load) (r result, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), l.Warmup+l.Duration+20*time.Second)
	defer cancel()
	input, err := json.Marshal(l)
	if err != nil {
		return r, err
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, b.self, "client")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &errs
	// The Go runtime sends a signal to a thread that has not called the scheduler for some
	// time. asyncpreemptoff=1 turns off these signals, which would interrupt the system calls
	// of the client.
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	if err := pinned(l.CPU, cmd.Start); err != nil {
		return r, err
	}
	if err := cmd.Wait(); err != nil {
		return r, fmt.Errorf("the client failed: %w: %s", err, errs.Bytes())
	}
	return r, json.Unmarshal(out.Bytes(), &r)
}
