package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/packaging/proc"
)

// A usage contains the resources that the host uses while no client runs.
type usage struct {
	broker, sidecar proc.Usage
	stored          []string // the names of the file descriptors in the service manager's store
	files           []string // the paths of all files and directories in the runtime directory
}

func (u usage) String() string {
	return fmt.Sprintf("keyhatchd %v, keyhatch-sidecar %v, %d stored descriptors, %d files", u.broker, u.sidecar, len(u.stored), len(u.files))
}

// The Go runtime does not release all threads and all memory at once, so a process may use
// this much more than at the start.
const (
	extraThreads   = 6
	extraKilobytes = 8 << 10
)

// exceeds returns an error if a process uses more resources in u than in before. A process may use
// extraThreads and extraKilobytes more. exceeds also returns an error if the stored file descriptors
// or the files of u and before differ.
func (u usage) exceeds(before usage) error {
	for _, p := range []struct {
		name        string
		now, before proc.Usage
	}{{"keyhatchd", u.broker, before.broker}, {"keyhatch-sidecar", u.sidecar, before.sidecar}} {
		if p.now.Descriptors > p.before.Descriptors || p.now.Threads > p.before.Threads+extraThreads || p.now.Kilobytes > p.before.Kilobytes+extraKilobytes {
			return fmt.Errorf("%s uses more resources than at the start: now %v, before %v", p.name, p.now, p.before)
		}
	}
	if !slices.Equal(u.stored, before.stored) {
		return fmt.Errorf("the service manager stores other file descriptors than at the start: now %q, before %q", u.stored, before.stored)
	}
	if !slices.Equal(u.files, before.files) {
		return fmt.Errorf("the runtime directory contains other files than at the start: now %q, before %q", u.files, before.files)
	}
	return nil
}

func (h *host) usage() (u usage, err error) {
	u.stored = h.manager.stored()
	if u.broker, err = readUsage(h.broker); err != nil {
		return u, err
	}
	if u.sidecar, err = readUsage(h.sidecar); err != nil {
		return u, err
	}
	root := filepath.Join(h.dir, "run")
	err = filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		u.files = append(u.files, strings.TrimPrefix(path, root))
		return err
	})
	return u, err
}

func readUsage(s *service) (proc.Usage, error) {
	pid := s.pid()
	if pid == 0 {
		return proc.Usage{}, fmt.Errorf("%s does not run", s.name)
	}
	return proc.Read(pid)
}

// hasChildren reports whether a process has child processes.
func hasChildren(pid int) bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	return slices.ContainsFunc(files, func(file string) bool {
		list, _ := os.ReadFile(file)
		return len(list) > 0
	})
}

// countGoroutines ends a service with SIGABRT, and counts the goroutines in its output. The
// service is then started again.
func (h *host) countGoroutines(s *service) (count int, err error) {
	before, err := os.ReadFile(h.log(s.name))
	if err != nil {
		return 0, err
	}
	if !s.end(syscall.SIGABRT) {
		return 0, fmt.Errorf("%s does not run", s.name)
	}
	err = waitFor(10*time.Second, func() error {
		if s.pid() == 0 {
			return fmt.Errorf("%s did not start again", s.name)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	after, err := os.ReadFile(h.log(s.name))
	if err != nil {
		return 0, err
	}
	if count = goroutinesIn(string(after[len(before):])); count == 0 {
		return 0, fmt.Errorf("%s printed no goroutines", s.name)
	}
	return count, nil
}

// goroutinesIn counts the goroutines in the output of a Go program after SIGABRT. It ignores
// the goroutines of the Go runtime, because their number depends on the garbage collector.
func goroutinesIn(output string) (count int) {
	for block := range strings.SplitSeq(output, "\n\n") {
		if strings.HasPrefix(block, "goroutine ") && !strings.Contains(block, "\ncreated by runtime.") {
			count++
		}
	}
	return count
}
