package devcontainer

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ChangeAction is what happens to a child when its secrets change: a restart, a signal,
// or nothing if both are zero.
type ChangeAction struct {
	Restart bool
	Signal  syscall.Signal
}

// ParseChangeAction reads restart, signal:NAME or none.
func ParseChangeAction(text string) (ChangeAction, error) {
	switch text {
	case "restart":
		return ChangeAction{Restart: true}, nil
	case "none":
		return ChangeAction{}, nil
	}
	if signalName, ok := strings.CutPrefix(text, "signal:"); ok {
		signalName = strings.ToUpper(signalName)
		if !strings.HasPrefix(signalName, "SIG") {
			signalName = "SIG" + signalName
		}
		if number := unix.SignalNum(signalName); number != 0 {
			return ChangeAction{Signal: number}, nil
		}
	}
	return ChangeAction{}, fmt.Errorf("it is restart, none, or signal: and a signal's name, as in signal:HUP")
}

// A Child is a command that runs as a child process, so that it can be restarted or
// signalled when secrets change. It leads a process group, which has the terminal if we
// had it.
type Child struct {
	Path        string
	Args        []string
	OnChange    ChangeAction
	GracePeriod time.Duration // from SIGTERM to SIGKILL, of a restart
	// Updates receives the new environment after each change.
	Updates <-chan []string
}

// supervisor is the state of Run. One goroutine owns it: signals, the child's end
// among them, come to it by channels.
type supervisor struct {
	Child
	tty      int // the controlling terminal; -1: none
	pid      int // of the child, and of its group
	exitCode int // of the child, once it has ended

	exited             bool
	restartEnvironment []string         // for the next start; nil: no restart
	killTimer          <-chan time.Time // when the grace period of a restart ends; else nil
}

// Run starts the command, passes signals on to it, and returns its exit code, or
// 128 and the number of the signal that ended it. An error says that it could
// not be started, at first or again.
//
// What a restart ends is the whole group: no process that has the old secrets,
// or the port, stays behind. To know when it is gone, orphans must come to us.
func (c Child) Run(environment []string) (exitCode int, err error) {
	s := &supervisor{Child: c}
	childEnded := make(chan os.Signal, 1) // one says it for many
	signal.Notify(childEnded, syscall.SIGCHLD)
	defer signal.Stop(childEnded)
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, forwardedSignals()...)
	defer signal.Stop(signals)
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	s.tty = openTerminal()
	if s.tty >= 0 {
		defer unix.Close(s.tty)
	}
	if err = s.start(environment); err != nil {
		return 0, err
	}
	for {
		select {
		case updated := <-s.Updates:
			s.applyUpdate(updated)
		case sig := <-signals:
			s.forward(sig.(syscall.Signal))
		case <-childEnded:
			s.reap()
		case <-s.killTimer:
			unix.Kill(-s.pid, unix.SIGKILL)
		}
		switch {
		case s.exited && s.restartEnvironment == nil:
			return s.exitCode, nil
		case s.exited && unix.Kill(-s.pid, 0) == unix.ESRCH:
			if err := s.start(s.restartEnvironment); err != nil {
				return 0, err
			}
		}
	}
}

// start starts the command, which takes the terminal over where it is ours.
func (s *supervisor) start(environment []string) (err error) {
	foreground := s.tty >= 0 && foregroundGroup(s.tty) == unix.Getpgrp()
	s.exited, s.restartEnvironment, s.killTimer = false, nil, nil
	s.pid, err = syscall.ForkExec(s.Path, s.Args, &syscall.ProcAttr{
		Env:   environment,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Foreground: foreground, Ctty: s.tty},
	})
	return err
}

// applyUpdate restarts the child with the new environment, or signals it.
func (s *supervisor) applyUpdate(environment []string) {
	switch {
	case s.OnChange.Restart:
		s.restartEnvironment = environment
		if s.killTimer == nil {
			s.killTimer = time.After(s.GracePeriod)
			unix.Kill(-s.pid, unix.SIGTERM)
			unix.Kill(-s.pid, unix.SIGCONT) // one that is stopped would never see it
		}
	case s.OnChange.Signal != 0:
		unix.Kill(s.pid, s.OnChange.Signal)
	}
}

// forward hands a signal to the child.
func (s *supervisor) forward(sig syscall.Signal) {
	switch sig {
	case unix.SIGCONT:
		// After fg the terminal is ours to give; after bg it is not.
		if s.tty >= 0 && foregroundGroup(s.tty) == unix.Getpgrp() {
			s.setForegroundGroup(s.pid)
		}
		unix.Kill(-s.pid, unix.SIGCONT)
		return
	case unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP:
		s.restartEnvironment = nil // whoever wants an end wants no restart
	}
	if !s.exited {
		unix.Kill(s.pid, sig)
	}
}

// reap waits for every process that has ended: the child, and orphans.
func (s *supervisor) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG|unix.WUNTRACED, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || pid <= 0:
			return
		case pid != s.pid:
			continue
		case status.Stopped():
			s.suspend()
			continue
		case status.Exited():
			s.exitCode = status.ExitStatus()
		default:
			s.exitCode = 128 + int(status.Signal())
		}
		s.exited = true
		s.reclaimTerminal()
	}
}

// suspend stops us too when the child was stopped, by Ctrl-Z for one, so that
// the shell we run in notices. SIGCONT wakes both. Who leads the session, as with
// docker run -it or exec -it, has no shell that would send one.
func (s *supervisor) suspend() {
	sessionLeader, _ := unix.Getsid(0)
	switch {
	case s.tty < 0:
	case sessionLeader == os.Getpid():
		s.forward(unix.SIGCONT)
	case foregroundGroup(s.tty) == unix.Getpgrp():
		// In the background it wanted to read. With an fg meanwhile it may, and a
		// shell that had not seen us stop sends no SIGCONT.
		s.forward(unix.SIGCONT)
	default:
		s.reclaimTerminal()
		unix.Kill(unix.Getpid(), unix.SIGSTOP)
	}
}

// reclaimTerminal takes back what the child's group was given: whoever runs next in
// our group could not read from it.
func (s *supervisor) reclaimTerminal() {
	if s.tty >= 0 && foregroundGroup(s.tty) == s.pid {
		s.setForegroundGroup(unix.Getpgrp())
	}
}

// setForegroundGroup gives the terminal to a group. Who does that from the background
// is stopped with SIGTTOU unless it is ignored (tcsetpgrp(3)).
func (s *supervisor) setForegroundGroup(group int) {
	signal.Ignore(unix.SIGTTOU)
	unix.IoctlSetPointerInt(s.tty, unix.TIOCSPGRP, group)
	signal.Reset(unix.SIGTTOU)
}

// foregroundGroup returns the process group that has the terminal, or 0.
func foregroundGroup(tty int) (group int) {
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return group
}

// openTerminal opens the controlling terminal. It returns -1 if there is none.
func openTerminal() (tty int) {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// forwardedSignals returns the signals that are forwarded: all but those that cannot be
// caught, that are about ourselves (faults, our children, our pipes, the Go
// runtime's SIGURG and SIGPROF), and that stop a process for the terminal's sake.
func forwardedSignals() []os.Signal {
	var signals []os.Signal
	for sig := unix.Signal(1); sig <= 64; sig++ {
		switch sig {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGPROF,
			unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS, unix.SIGABRT,
			unix.SIGTTIN, unix.SIGTTOU:
			continue
		case 32, 33, 34: // the C library's own
			continue
		}
		if !signal.Ignored(sig) { // nohup means the command too
			signals = append(signals, sig)
		}
	}
	return signals
}
