package rundir

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// childDelay is the time after which another child process starts if all child processes are busy
// and none of their operations has ended.
const childDelay = 20 * time.Millisecond

// childIdleTime is the time after which an idle child process ends.
const childIdleTime = 5 * time.Second

// ErrBlocked means that an operation in the directory of a project did not end within
// directoryTimeout, or could not begin within this time because an earlier operation had
// not ended.
var ErrBlocked = errors.New("a container may be blocking the directory of the project")

// children contains the idle child process, and starts child processes.
type children struct {
	runtimeDir string
	idle       chan *child   // has room for one child process
	starting   chan struct{} // has room for one value; full while a goroutine starts a child process or waits to start one
	idleTimer  *time.Timer   // calls endIdle

	running atomic.Int64 // number of operations that are running
	ended   atomic.Int64 // number of operations that have ended

	mu   sync.Mutex
	busy map[string]*busyDir // guarded by mu; see enter
}

// A busyDir is a directory in which an operation runs or waits.
type busyDir struct {
	turn  chan struct{} // has room for one value; full while an operation runs
	users int           // guarded by children.mu; number of operations that run or wait
}

func newChildren(runtimeDir string) *children {
	s := &children{runtimeDir: runtimeDir, idle: make(chan *child, 1), starting: make(chan struct{}, 1), busy: map[string]*busyDir{}}
	s.idleTimer = time.AfterFunc(childIdleTime, s.endIdle)
	return s
}

// acquire returns a child process that runs no operation. If all child processes are busy, acquire
// waits while operations end quickly, so that many short operations need only a few child
// processes. If no operation ends within childDelay, a container may be delaying the operations,
// so acquire starts another child process.
func (s *children) acquire() (*child, error) {
	for {
		c, err := s.tryAcquire()
		if err != nil || !c.hasEnded() {
			return c, err
		}
		c.end()
	}
}

func (s *children) tryAcquire() (*child, error) {
	select {
	case c := <-s.idle:
		return c, nil
	default:
	}
	select {
	case c := <-s.idle:
		return c, nil
	case s.starting <- struct{}{}: // only one goroutine at a time may start a child process
	}
	defer func() { <-s.starting }()
	for {
		ended := s.ended.Load()
		if s.running.Load() == 0 {
			return startChild(s.runtimeDir)
		}
		select {
		case c := <-s.idle:
			return c, nil
		case <-time.After(childDelay):
		}
		if s.ended.Load() == ended {
			return startChild(s.runtimeDir)
		}
	}
}

// release stores a child process, which is now idle, for the next operation. If another idle child
// process is already stored, release ends the child process.
func (s *children) release(c *child) {
	select {
	case s.idle <- c:
		s.idleTimer.Reset(childIdleTime)
	default:
		c.end()
	}
}

func (s *children) endIdle() {
	select {
	case c := <-s.idle:
		c.end()
	default:
	}
}

// run runs an operation in a child process, and passes a socket unless socket is -1. At most
// one operation runs at the same time for each directory. If the operation does not end within
// directoryTimeout, run kills the child process and returns ErrBlocked. No other operation in
// the directory starts before the killed child process has ended. So a container can block only
// one child process for each directory. run also fails if no child process can be started, or if
// the operation itself fails.
func (s *children) run(o operation, socket int) (result, error) {
	if !s.enter(o.Dir) {
		return result{}, ErrBlocked
	}
	c, err := s.acquire()
	if err != nil {
		s.leave(o.Dir)
		return result{}, err
	}
	s.running.Add(1)
	r, err := c.run(o, socket)
	s.ended.Add(1)
	s.running.Add(-1)
	if err != nil {
		c.kill()
		go func() { // ends when the child process has ended
			<-c.ended
			s.leave(o.Dir)
		}()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return result{}, ErrBlocked
		}
		return result{}, fmt.Errorf("running an operation in a child process: %w", err)
	}
	s.release(c)
	s.leave(o.Dir)
	if r.Error != "" {
		return result{}, errors.New(r.Error)
	}
	return r, nil
}

// enter waits until no other operation runs in a directory. It returns false if this takes
// longer than directoryTimeout. Call leave after the operation.
func (s *children) enter(dir string) bool {
	s.mu.Lock()
	b := s.busy[dir]
	if b == nil {
		b = &busyDir{turn: make(chan struct{}, 1)}
		s.busy[dir] = b
	}
	b.users++
	s.mu.Unlock()
	timeout := time.NewTimer(directoryTimeout)
	defer timeout.Stop()
	select {
	case b.turn <- struct{}{}:
		return true
	case <-timeout.C:
		s.forget(dir, b)
		return false
	}
}

func (s *children) leave(dir string) {
	s.mu.Lock()
	b := s.busy[dir]
	s.mu.Unlock()
	<-b.turn
	s.forget(dir, b)
}

func (s *children) forget(dir string, b *busyDir) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.users--; b.users == 0 {
		delete(s.busy, dir)
	}
}
