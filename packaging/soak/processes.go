package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// processes starts and waits for all processes of the test. It also finds processes that have
// lost their parent, for example the child process of a killed sidecar.
type processes struct {
	mu      sync.Mutex
	running map[int]bool // process IDs of the started processes for which wait has not returned yet
}

func newProcesses() (*processes, error) {
	// Processes that lose their parent become child processes of this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("cannot become the parent of orphaned processes: %w", err)
	}
	return &processes{running: map[int]bool{}}, nil
}

func (p *processes) start(c *exec.Cmd) error {
	p.mu.Lock() // so that orphans does not report a process that is not in p.running yet
	defer p.mu.Unlock()
	if err := c.Start(); err != nil {
		return err
	}
	p.running[c.Process.Pid] = true
	return nil
}

func (p *processes) wait(c *exec.Cmd) error {
	err := c.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, c.Process.Pid)
	return err
}

func (p *processes) run(c *exec.Cmd) error {
	if err := p.start(c); err != nil {
		return err
	}
	return p.wait(c)
}

// orphans returns the command lines of all running processes that have lost their parent. If
// such a process has ended, orphans removes the entry of the process from the process table.
func (p *processes) orphans() (commands []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		list, _ := os.ReadFile(file)
		for _, field := range strings.Fields(string(list)) {
			pid, err := strconv.Atoi(field)
			if err != nil || p.running[pid] {
				continue
			}
			if ended, _ := unix.Wait4(pid, nil, unix.WNOHANG, nil); ended == pid {
				continue
			}
			command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			commands = append(commands, strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return commands
}

// releaseOrphans calls orphans again and again until stop is closed. Otherwise the processes
// that have ended would stay in the process table.
func (p *processes) releaseOrphans(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Second):
			p.orphans()
		}
	}
}
