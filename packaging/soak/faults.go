package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// The mean time between two faults, and between two changes of the store.
const (
	faultPause  = 500 * time.Millisecond
	changePause = 300 * time.Millisecond
)

// faults kills and restarts processes, and changes secrets and manifests, at random moments.
type faults struct {
	h      *host
	load   *load
	random *rand.Rand
	mu     sync.Mutex
	counts map[string]int
}

func newFaults(h *host, l *load, seed uint64) *faults {
	return &faults{h: h, load: l, random: rand.New(rand.NewPCG(seed, 0)), counts: map[string]int{}}
}

func (f *faults) count(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[kind]++
}

// kills returns how many processes were killed.
func (f *faults) kills() (kills int) {
	for kind, count := range f.counts {
		if strings.HasPrefix(kind, "kill ") {
			kills += count
		}
	}
	return kills
}

func (f *faults) String() string {
	var list []string
	for _, kind := range slices.Sorted(maps.Keys(f.counts)) {
		list = append(list, fmt.Sprintf("%s: %d", kind, f.counts[kind]))
	}
	return strings.Join(list, ", ")
}

// pause returns a random time whose mean is mean.
func (f *faults) pause(mean time.Duration) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Duration(f.random.ExpFloat64() * float64(mean))
}

func (f *faults) number(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.random.IntN(n)
}

// run causes faults and changes for a time. If services is false, the broker and the sidecar
// keep running, and only clients are killed.
func (f *faults) run(duration time.Duration, services bool) {
	end := time.Now().Add(duration)
	var ended sync.WaitGroup
	repeat := func(mean time.Duration, step func()) {
		ended.Go(func() {
			for time.Now().Before(end) {
				time.Sleep(f.pause(mean))
				step()
			}
		})
	}
	repeat(faultPause, func() { f.fault(services) })
	repeat(changePause, f.change)
	repeat(4*changePause, f.reload)
	ended.Wait()
}

func (f *faults) fault(services bool) {
	n := f.number(100)
	if !services {
		n %= 40 // select one of the first two cases, which do not end a service
	}
	done := true
	kind := ""
	switch {
	case n < 35:
		kind, done = "kill keyhatch", f.load.killClient()
	case n < 40:
		kind, done = "reload keyhatchd", f.h.brokerServes() && f.h.broker.signal(syscall.SIGHUP)
	case n < 65:
		kind, done = "kill keyhatchd", f.h.broker.end(syscall.SIGKILL)
	case n < 82:
		kind, done = "kill keyhatch-sidecar", f.h.sidecar.end(syscall.SIGKILL)
	case n < 88:
		kind, done = "restart keyhatchd", f.h.broker.end(syscall.SIGTERM)
	case n < 92:
		kind, done = "restart keyhatch-sidecar", f.h.sidecar.end(syscall.SIGTERM)
	default:
		// Kill the broker and the sidecar, so that many clients wait for the next broker. Then
		// kill the next broker too, while these clients are connected to it.
		kind, done = "kill keyhatchd", f.h.broker.end(syscall.SIGKILL)
		if f.h.sidecar.end(syscall.SIGKILL) {
			f.count("kill keyhatch-sidecar")
		}
		for deadline := time.Now().Add(5 * time.Second); !f.h.brokerServes() && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(f.pause(50 * time.Millisecond))
		if f.h.broker.end(syscall.SIGKILL) {
			f.count(kind)
		}
	}
	if done {
		f.count(kind)
	}
}

// change changes a secret in the store.
func (f *faults) change() {
	name := secretName(f.number(secretCount))
	var err error
	switch n := f.number(10); {
	case n < 5:
		f.count("rename a file")
		err = f.h.secrets.replace(name)
	case n < 7:
		f.count("overwrite a file")
		err = f.h.secrets.overwrite(name, func() { time.Sleep(f.pause(50 * time.Millisecond)) })
	default:
		err = f.set(name)
	}
	if err != nil {
		f.h.problems.add("changing the store: %v", err)
	}
}

// reload changes the approved manifest of a project.
func (f *faults) reload() {
	f.count("change a manifest")
	if err := f.h.reload(f.h.projects[f.number(projectCount)]); err != nil {
		f.h.problems.add("%v", err)
	}
}

// set runs keyhatch-sidecar set, and kills it in half of the cases.
func (f *faults) set(name schema.SecretName) error {
	defer f.h.secrets.lock(name)()
	c := f.h.command("keyhatch-sidecar", "set", string(name), "--store", "dir:"+f.h.secrets.dir)
	c.Stdin = strings.NewReader(f.h.secrets.next(name))
	var output strings.Builder
	c.Stdout, c.Stderr = &output, &output
	if err := f.h.processes.start(c); err != nil {
		return err
	}
	kill := f.number(2) == 0
	if kill {
		time.Sleep(f.pause(5 * time.Millisecond))
		c.Process.Kill()
	}
	err := f.h.processes.wait(c)
	if kill {
		if exit, ok := err.(*exec.ExitError); ok && exit.Sys().(syscall.WaitStatus).Signaled() {
			f.count("kill keyhatch-sidecar set")
			return nil
		}
	}
	f.count("run keyhatch-sidecar set")
	if err != nil {
		return fmt.Errorf("keyhatch-sidecar set: %w: %s", err, output.String())
	}
	return nil
}
