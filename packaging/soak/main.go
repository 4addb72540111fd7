// Command soak runs a real broker, a real sidecar, and the clients of 20 projects for a long
// time. It kills and restarts them at random moments, and changes secrets and manifests. The
// exit code is 1 if
//
//   - a client that waits saw an error, or got a wrong, old, or partial value,
//   - a project got a secret that its approved manifest does not contain,
//   - the value of a secret is in a file outside the store,
//   - a line of the audit log is not one whole event, or contains the name of a secret,
//   - a service ended by itself, or left a process behind, or
//   - a service uses more file descriptors, goroutines, threads, or memory than at the start.
//
// The command replaces systemd: it restarts the services and stores the broker's file
// descriptors. It writes only to one new directory. Its load is about one processor or less.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

func main() {
	bin := flag.String("bin", "bin", "`DIR` that contains the keyhatch commands")
	duration := flag.Duration("duration", 3*time.Minute, "`DURATION` of the whole test")
	seed := flag.Uint64("seed", rand.Uint64(), "`NUMBER` that selects the faults; their effects also depend on the timing")
	flag.Parse()
	if err := run(*bin, *duration, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(bin string, duration time.Duration, seed uint64) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	found := &problems{}
	h, err := newHost(bin, found)
	if err != nil {
		return err
	}
	fmt.Printf("seed %d, directory %s, end at %s\n", seed, h.dir, time.Now().Add(duration).Format(time.TimeOnly))
	if os.Geteuid() != 0 {
		fmt.Println("note: without root, file descriptors are not counted")
	}
	stop := make(chan struct{})
	defer close(stop)
	go h.processes.releaseOrphans(stop) // this goroutine ends when stop is closed
	if err := h.start(); err != nil {
		return fmt.Errorf("%w (see %s)", err, h.dir)
	}
	if err := soak(h, duration, seed); err != nil {
		found.add("%v", err)
	}
	h.stop()
	h.checkTraces()
	if count := found.total(); count > 0 {
		return fmt.Errorf("%d problems; the logs are in %s; to cause the same faults again, use -seed %d", count, h.dir, seed)
	}
	fmt.Println("no problems")
	return os.RemoveAll(h.dir)
}

// soak compares the resources before and after the faults. During the last part of the test,
// the broker and the sidecar are not killed, because a new process would hide an earlier leak.
func soak(h *host, duration time.Duration, seed uint64) error {
	warmUp := h.startLoad()
	newFaults(h, warmUp, seed).run(duration/12, false)
	warmUp.end()
	before, err := h.usageAtRest(nil)
	if err != nil {
		return err
	}
	fmt.Println("at the start:", before)
	brokerGoroutines, sidecarGoroutines, err := h.goroutines()
	if err != nil {
		return err
	}
	l := h.startLoad()
	f := newFaults(h, l, seed)
	f.run(duration*7/12, true)
	f.run(duration*3/12, false)
	l.end()
	fmt.Printf("%d kills (%v)\n", f.kills(), f)
	fmt.Printf("%d keyhatch commands and %d gets by this program succeeded; the slowest took %v\n", l.clients.Load(), l.gets.Load(), time.Duration(l.slowest.Load()).Round(time.Millisecond))
	if f.kills() == 0 || l.clients.Load() == 0 || l.gets.Load() == 0 {
		h.problems.add("the test killed no process, or no keyhatch command succeeded, or no get succeeded")
	}
	if longRun := time.Hour; duration >= longRun && f.kills() < 1000 {
		h.problems.add("the test killed only %d processes, want 1000", f.kills())
	}
	h.checkSettled()
	after, err := h.usageAtRest(&before)
	if err != nil {
		h.problems.add("%v", err)
	}
	fmt.Println("at the end:  ", after)
	broker, sidecar, err := h.goroutines()
	if err != nil {
		return err
	}
	fmt.Printf("goroutines: keyhatchd %d, at the start %d; keyhatch-sidecar %d, at the start %d\n", broker, brokerGoroutines, sidecar, sidecarGoroutines)
	if broker > brokerGoroutines || sidecar > sidecarGoroutines {
		h.problems.add("there are more goroutines than at the start")
	}
	return nil
}

// usageAtRest waits until the services have no child processes, and until exceeds returns no error
// for before. This takes some time, because the broker keeps an idle child process for a few
// seconds. If before is nil, usageAtRest waits until the number of file descriptors does not change
// any more.
func (h *host) usageAtRest(before *usage) (u usage, err error) {
	previous := usage{}
	err = waitFor(15*time.Second, func() error {
		var err error
		if u, err = h.usage(); err != nil {
			return err
		}
		if hasChildren(h.broker.pid()) || hasChildren(h.sidecar.pid()) {
			return errors.New("a child process of a service has not ended")
		}
		if before != nil {
			return u.exceeds(*before)
		}
		time.Sleep(500 * time.Millisecond)
		defer func() { previous = u }()
		if u.broker.Descriptors != previous.broker.Descriptors || u.sidecar.Descriptors != previous.sidecar.Descriptors {
			return fmt.Errorf("the number of file descriptors still changes: now %v, before %v", u, previous)
		}
		return nil
	})
	return u, err
}

// goroutines counts the goroutines of the broker and of the sidecar while both are idle.
// Counting ends the broker (see countGoroutines). So before the second count, goroutines waits
// until the sidecar has pushed the secrets to the next broker.
func (h *host) goroutines() (broker, sidecar int, err error) {
	if _, err = h.usageAtRest(nil); err != nil {
		return 0, 0, err
	}
	if broker, err = h.countGoroutines(h.broker); err != nil {
		return 0, 0, err
	}
	if _, err = h.projects[0].client.GetMany(context.Background(), h.projects[0].names, wait); err != nil {
		return 0, 0, err
	}
	if _, err = h.usageAtRest(nil); err != nil {
		return 0, 0, err
	}
	sidecar, err = h.countGoroutines(h.sidecar)
	return broker, sidecar, err
}

// checkTraces checks what the stopped services have left behind: files, the audit log, and
// processes.
func (h *host) checkTraces() {
	if err := searchFiles(h.dir, h.secrets.dir, tripwire); err != nil {
		h.problems.add("%v", err)
	}
	events, err := checkAuditLog(h.auditLog())
	if err != nil {
		h.problems.add("%v", err)
	}
	fmt.Printf("%d audit events\n", events)
	if events == 0 {
		h.problems.add("the audit log is empty")
	}
	var left []string
	waitFor(5*time.Second, func() error {
		if left = h.processes.orphans(); len(left) > 0 {
			return errors.New("some processes have not ended")
		}
		return nil
	})
	if len(left) > 0 {
		h.problems.add("these processes have not ended: %q", left)
	}
}
