package main

import (
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// restartDelay is the time between the end of a service and its next start, as in
// keyhatch.service (RestartSec=).
const restartDelay = 100 * time.Millisecond

// A service is a broker or a sidecar that is started again when it ends.
type service struct {
	name     string
	problems *problems
	command  func() *exec.Cmd
	start    func(*exec.Cmd) error
	wait     func(*exec.Cmd) error

	mu       sync.Mutex
	current  *exec.Cmd
	expected bool          // end or stop has sent a signal to the current process
	stopping bool          // stop was called, so run must not start the service again
	ended    chan struct{} // closed when the service has stopped
}

// run starts the service again and again until stop is called.
func (s *service) run() {
	defer close(s.ended)
	for {
		c := s.command()
		s.mu.Lock()
		if s.stopping {
			s.mu.Unlock()
			return
		}
		err := s.start(c)
		s.current, s.expected = c, false
		s.mu.Unlock()
		if err != nil {
			s.problems.add("%s does not start: %v", s.name, err)
			return
		}
		err = s.wait(c)
		s.mu.Lock()
		expected, stopping := s.expected, s.stopping
		s.current = nil
		s.mu.Unlock()
		if !expected {
			s.problems.add("%s ended by itself: %v", s.name, err)
		}
		if stopping {
			return
		}
		time.Sleep(restartDelay)
	}
}

// end sends a signal that ends the current process. It returns false if no process runs. After
// SIGTERM, the process must end successfully within ten seconds. Otherwise end reports a
// problem.
func (s *service) end(signal syscall.Signal) bool {
	s.mu.Lock()
	c := s.current
	if c == nil || s.expected {
		s.mu.Unlock()
		return false
	}
	s.expected = true
	c.Process.Signal(signal)
	s.mu.Unlock()
	if signal != syscall.SIGTERM {
		return true
	}
	for deadline := time.Now().Add(10 * time.Second); s.runs(c); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.problems.add("%s did not end within 10 seconds after SIGTERM", s.name)
			c.Process.Kill()
			deadline = time.Now().Add(time.Hour)
		}
	}
	// If the process has just started, it does not handle SIGTERM yet, and the signal ends it.
	// This is not a problem.
	status := c.ProcessState.Sys().(syscall.WaitStatus)
	if !c.ProcessState.Success() && !(status.Signaled() && status.Signal() == syscall.SIGTERM) {
		s.problems.add("%s failed after SIGTERM: %v", s.name, c.ProcessState)
	}
	return true
}

func (s *service) runs(c *exec.Cmd) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current == c
}

// signal sends a signal that does not end the current process. It returns false if no process
// runs.
func (s *service) signal(signal os.Signal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current != nil && !s.expected && s.current.Process.Signal(signal) == nil
}

// pid returns the process ID of the current process, or 0.
func (s *service) pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil || s.expected {
		return 0
	}
	return s.current.Process.Pid
}

// stop ends the service.
func (s *service) stop() {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	s.end(syscall.SIGTERM)
	<-s.ended
}
