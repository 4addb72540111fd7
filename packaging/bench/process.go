package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhatch/keyhatch/packaging/proc"
)

// A process is a server that the benchmark has started.
type process struct {
	cmd    *exec.Cmd
	output *bytes.Buffer
	ended  chan struct{}
}

// startProcess starts a command that can use only one processor. If cpu is -1, the command
// can use all processors.
func startProcess(cpu int, args ...string) (*process, error) {
	return startCommand(cpu, exec.Command(args[0], args[1:]...))
}

func startCommand(cpu int, cmd *exec.Cmd) (*process, error) {
	p := &process{cmd, &bytes.Buffer{}, make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := pinned(cpu, p.cmd.Start); err != nil {
		return nil, err
	}
	go func() { p.cmd.Wait(); close(p.ended) }()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// waitFor repeats a check until the check succeeds, the process ends, or 20 seconds have
// passed.
func (p *process) waitFor(check func() error) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Microsecond) {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %s", p.cmd.Path, p.output)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %w", p.cmd.Path, err)
		}
	}
}

// pinned calls start on a thread that can use only one processor. A process that start creates
// can then also use only this processor, and its Go runtime sets GOMAXPROCS to 1. If cpu is
// negative, the processors are not limited.
func pinned(cpu int, start func() error) error {
	if cpu < 0 {
		return start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	defer unix.SchedSetaffinity(0, &before)
	return start()
}

// settledMemory returns the resident memory in KiB when it has not changed for three seconds,
// or after at most 15 seconds. keyhatchd returns unused memory to the kernel about two seconds
// after the last change of a project.
func (p *process) settledMemory() float64 {
	last, since := p.memory(), time.Now()
	for began := since; time.Since(since) < 3*time.Second && time.Since(began) < 15*time.Second; time.Sleep(50 * time.Millisecond) {
		if now := p.memory(); now != last {
			last, since = now, time.Now()
		}
	}
	return last
}

// memory returns the resident memory of the process in KiB (VmRSS in proc_pid_status(5)). It
// does not include memory that the kernel uses for the sockets of the process.
func (p *process) memory() (kib float64) {
	usage, _ := proc.Read(p.pid()) // if the process has ended, the memory is 0
	return float64(usage.Kilobytes)
}
