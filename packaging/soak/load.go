package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
)

// wait is how long a client waits for a secret (--wait). The broker and the sidecar always run
// again after a few seconds, so a client that waits must never fail.
const wait = time.Minute

// A load lets clients of all projects get secrets.
type load struct {
	h       *host
	stop    chan struct{}
	ended   sync.WaitGroup
	clients atomic.Int64 // answers to keyhatch commands
	gets    atomic.Int64 // answers to requests that this process sends itself
	slowest atomic.Int64 // the longest time until an answer, in nanoseconds

	mu      sync.Mutex
	running []*victim
}

// A victim is a process that can be killed at any moment.
type victim struct {
	cmd    *exec.Cmd
	killed bool
}

func (h *host) startLoad() *load {
	l := &load{h: h, stop: make(chan struct{})}
	for _, p := range h.projects {
		l.ended.Go(func() { l.repeat(400*time.Millisecond, func() error { return l.runClient(p) }) })
		l.ended.Go(func() { l.repeat(50*time.Millisecond, func() error { return l.get(p) }) })
		l.ended.Go(func() { l.watch(p) })
	}
	return l
}

// end stops the load, and waits until all clients have ended.
func (l *load) end() {
	close(l.stop)
	l.ended.Wait()
}

// repeat calls f again and again until the load ends, and reports each error as a problem. The
// pauses between the calls are random, and pause is their mean.
func (l *load) repeat(pause time.Duration, f func() error) {
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(time.Duration(rand.ExpFloat64() * float64(pause))):
		}
		if err := f(); err != nil {
			l.h.problems.add("%v", err)
		}
	}
}

// runClient runs one random keyhatch command in the project, and checks its result.
func (l *load) runClient(p *project) error {
	name := p.names[rand.IntN(len(p.names))]
	switch n := rand.IntN(10); {
	case n < 5:
		return l.expect(p, func(out []byte) map[schema.SecretName]string {
			return map[schema.SecretName]string{name: string(out)}
		}, "get", "--wait", wait.String(), string(name))
	case n < 7:
		return l.expect(p, func(out []byte) map[schema.SecretName]string {
			return map[schema.SecretName]string{name: string(out)}
		}, "run", "--wait", wait.String(), "--only", string(name), "--", "sh", "-c", `printf %s "$`+string(name)+`"`)
	case n < 9:
		return l.expect(p, func(out []byte) (values map[schema.SecretName]string) {
			json.Unmarshal(out, &values) // if the output is not JSON, expect reports that there is no value
			return values
		}, "export", "--format", "json", "--wait", wait.String(), "--only", string(p.names[0])+","+string(p.names[1]))
	default:
		return l.expectDenied(p)
	}
}

// expect runs keyhatch and checks the values that it prints.
func (l *load) expect(p *project, parse func([]byte) map[schema.SecretName]string, args ...string) error {
	atLeast, began := l.h.secrets.newest(), time.Now()
	out, stderr, killed, err := l.keyhatch(p, args...)
	if killed {
		return nil
	}
	if err != nil {
		return fmt.Errorf("project %s: keyhatch %s, after %v: %w: %s", p.name, args[0], time.Since(began), err, stderr)
	}
	values := parse(out)
	if len(values) == 0 {
		return fmt.Errorf("project %s: keyhatch %s printed no value", p.name, args[0])
	}
	for name, value := range values {
		if err := l.h.secrets.check(name, value, atLeast); err != nil {
			return fmt.Errorf("project %s: keyhatch %s: %w", p.name, args[0], err)
		}
	}
	l.answered(&l.clients, began)
	return nil
}

// expectDenied asks for a secret that the project must not get. The command must fail and
// print no value.
func (l *load) expectDenied(p *project) error {
	out, stderr, killed, err := l.keyhatch(p, "get", string(p.denied))
	var exit *exec.ExitError
	if killed {
		return nil
	}
	// The client does not wait, so it fails with exit code 3 if the broker is unreachable.
	if !errors.As(err, &exit) || (exit.ExitCode() != 4 && exit.ExitCode() != 3) || len(out) > 0 {
		return fmt.Errorf("project %s asked for a secret that is not allowed: keyhatch printed %d bytes, and its error is %v: %s", p.name, len(out), err, stderr)
	}
	l.clients.Add(1)
	return nil
}

// keyhatch runs keyhatch in the project. killed reports whether killClient has killed the
// command.
func (l *load) keyhatch(p *project, args ...string) (stdout, stderr []byte, killed bool, err error) {
	c := l.h.command("keyhatch", append([]string{"--socket", p.socket}, args...)...)
	var out, messages bytes.Buffer
	c.Stdout, c.Stderr = &out, &messages
	v := &victim{cmd: c}
	if err := l.h.processes.start(c); err != nil {
		return nil, nil, false, err
	}
	l.mu.Lock()
	l.running = append(l.running, v)
	l.mu.Unlock()
	err = l.h.processes.wait(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, other := range l.running {
		if other == v {
			l.running = append(l.running[:i], l.running[i+1:]...)
			break
		}
	}
	return out.Bytes(), messages.Bytes(), v.killed, err
}

// killClient kills a random client. It returns false if no client runs, or if the chosen
// client was already killed.
func (l *load) killClient() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.running) == 0 {
		return false
	}
	v := l.running[rand.IntN(len(l.running))]
	if v.killed {
		return false
	}
	v.killed = true
	return v.cmd.Process.Kill() == nil
}

// get gets all secrets of the project in this process.
func (l *load) get(p *project) error {
	atLeast, began := l.h.secrets.newest(), time.Now()
	got, err := p.client.GetMany(context.Background(), p.names, wait)
	if err != nil {
		return fmt.Errorf("project %s: get-many failed after %v: %w", p.name, time.Since(began), err)
	}
	for _, name := range p.names {
		value := got.Secrets[name].Value
		if value == nil {
			return fmt.Errorf("project %s: get-many did not return %s", p.name, name)
		}
		if err := l.h.secrets.check(name, *value, atLeast); err != nil {
			return fmt.Errorf("project %s: %w", p.name, err)
		}
	}
	l.answered(&l.gets, began)
	return nil
}

func (l *load) answered(counter *atomic.Int64, began time.Time) {
	counter.Add(1)
	elapsed := int64(time.Since(began))
	for slowest := l.slowest.Load(); elapsed > slowest && !l.slowest.CompareAndSwap(slowest, elapsed); slowest = l.slowest.Load() {
	}
}

// watch watches the project until the load ends. It connects to each new broker. If a broker
// did not release such a connection after the load, usage.exceeds would report too
// many file descriptors.
func (l *load) watch(p *project) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-l.stop; cancel() }() // this goroutine ends when the load ends
	if err := p.client.Watch(ctx, func(schema.ChangedEvent) {}); !errors.Is(err, context.Canceled) {
		l.h.problems.add("project %s: watch: %v (%s)", p.name, err, client.CodeOf(err))
	}
}
