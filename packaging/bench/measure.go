package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"
)

// A series contains one result for each round.
type series []result

// takeTurns measures all contenders in each round. In each round, another contender is first.
// Before each measurement, takeTurns calls prepare.
func (b *bench) takeTurns(all []*contender, loads []load, prepare func() error) (map[string]series, error) {
	measured := map[string]series{}
	for round := range b.rounds {
		for i := range all {
			i = (i + round) % len(all)
			loads[i].ServerPID, loads[i].Duration, loads[i].Warmup = all[i].process.pid(), b.duration, b.duration/5
			if err := prepare(); err != nil {
				return nil, err
			}
			r, err := b.measure(loads[i])
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
	// The Go runtime interrupts a thread that does not return to it. That would disturb the
	// client, which blocks in system calls.
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	if err := pinned(l.CPU, cmd.Start); err != nil {
		return r, err
	}
	if err := cmd.Wait(); err != nil {
		return r, fmt.Errorf("the client failed: %w: %s", err, errs.Bytes())
	}
	return r, json.Unmarshal(out.Bytes(), &r)
}

// A measure is one of the figures of a result.
type measure string

const (
	p50  measure = "p50"
	p99  measure = "p99"
	cpu  measure = "server CPU"
	rate measure = "rate"

	clientCPU measure = "client CPU"
	delay     measure = "delay of p99" // by a second load
)

func (r result) value(m measure) float64 {
	switch m {
	case p50:
		return r.P50
	case p99:
		return r.P99
	case cpu:
		return r.ServerCPU
	case clientCPU:
		return r.ClientCPU
	case delay:
		return r.Delay
	}
	return r.PerSecond
}

func (s series) median(m measure) float64 {
	values := make([]float64, len(s))
	for i, r := range s {
		values[i] = r.value(m)
	}
	return median(values)
}

// ratio returns the median of the ratios of all rounds.
func (s series) ratio(m measure, baseline series) float64 {
	values := make([]float64, len(s))
	for i, r := range s {
		values[i] = r.value(m) / baseline[i].value(m)
	}
	return median(values)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
