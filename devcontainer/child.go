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

// ChangeAction selects the effect of changed secrets on a Child: a restart, a signal, or no
// effect. The zero value means no effect.
type ChangeAction struct {
	Restart bool
	Signal  syscall.Signal
}

// ParseChangeAction parses the text restart, signal:NAME, or none.
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
	return ChangeAction{}, fmt.Errorf("must be restart, none, or signal:NAME, for example signal:HUP")
}

// A Child is a command that runs as a child process, so that it can be restarted or
// signaled when secrets change. The child process is the leader of its own process group.
// If keyhatch's process group is the foreground group of the terminal, the child's group
// becomes the foreground group.
type Child struct {
	Path        string
	Args        []string
	OnChange    ChangeAction
	GracePeriod time.Duration // time between SIGTERM and SIGKILL when the child is restarted
	// Run receives the new environment from Updates after each change of the secrets.
	Updates <-chan []string
}

// supervisor is the state of Child.Run. Only the goroutine that calls Child.Run uses this
// state. That goroutine receives signals, updates, and timer events from channels.
type supervisor struct {
	Child
	tty      int // file descriptor of the controlling terminal, or -1
	pid      int // process ID of the child, which is also the ID of its process group
	exitCode int // exit code of the child; valid if exited is true

	exited             bool
	terminating        bool             // keyhatch has received SIGTERM
	restartEnvironment []string         // environment for the pending restart; nil if no restart is pending
	killTimer          <-chan time.Time // fires when the grace period of a restart ends; nil until a restart begins
}

// Run starts the command, forwards signals to it, and returns its exit code. If a signal
// ended the command, the exit code is 128 plus the signal's number. Run returns an error
// only if the command could not be started or restarted.
//
// A restart ends all processes of the command's process group, so that no process still has
// the old secrets or a listening port. Run makes keyhatch the parent of orphaned descendants
// (prctl(2), PR_SET_CHILD_SUBREAPER). Otherwise Run could not detect that the last process
// of the group has ended.
func (c Child) Run(environment []string) (exitCode int, err error) {
	s := &supervisor{Child: c}
	childEnded := make(chan os.Signal, 1) // one signal is enough, because reap handles all ended children
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

// start starts the command. If keyhatch's process group is the foreground group of the
// terminal, the command's process group becomes the foreground group.
func (s *supervisor) start(environment []string) (err error) {
	foreground := s.tty >= 0 && foregroundProcessGroup(s.tty) == unix.Getpgrp()
	s.exited, s.restartEnvironment, s.killTimer = false, nil, nil
	s.pid, err = syscall.ForkExec(s.Path, s.Args, &syscall.ProcAttr{
		Env:   environment,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Foreground: foreground, Ctty: s.tty},
	})
	return err
}

// applyUpdate begins a restart with the new environment, sends a signal to the child, or
// does nothing, as OnChange requires.
func (s *supervisor) applyUpdate(environment []string) {
	switch {
	case s.terminating:
		// Somebody wants to end the command. A restart would prevent that.
	case s.OnChange.Restart:
		s.restartEnvironment = environment
		if s.killTimer == nil {
			s.killTimer = time.After(s.GracePeriod)
			unix.Kill(-s.pid, unix.SIGTERM)
			unix.Kill(-s.pid, unix.SIGCONT) // a stopped process handles SIGTERM only after SIGCONT
		}
	case s.OnChange.Signal != 0:
		unix.Kill(s.pid, s.OnChange.Signal)
	}
}

// forward sends the child a signal that keyhatch received.
func (s *supervisor) forward(sig syscall.Signal) {
	switch sig {
	case unix.SIGCONT:
		// After the shell command fg, keyhatch is in the foreground and makes the
		// child's group the foreground group. After bg, keyhatch is in the background
		// and does not change the foreground group.
		if s.tty >= 0 && foregroundProcessGroup(s.tty) == unix.Getpgrp() {
			s.setForegroundGroup(s.pid)
		}
		unix.Kill(-s.pid, unix.SIGCONT)
		return
	case unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP:
		s.restartEnvironment = nil // cancel a pending restart, because the user wants to end the command
		// The command can continue after the other signals.
		s.terminating = s.terminating || sig == unix.SIGTERM
	}
	if !s.exited {
		unix.Kill(s.pid, sig)
	}
}

// reap collects the status of every process that has ended or stopped. These processes are
// the child and its orphaned descendants.
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

// suspend is called when the child was stopped, for example by Ctrl-Z. suspend also stops
// keyhatch, so that the parent shell notices the stop. A later SIGCONT continues keyhatch and
// the child.
//
// If keyhatch is the session leader, as in docker run -it, no parent shell can send SIGCONT.
// In this case, suspend does not stop keyhatch and continues the child at once.
func (s *supervisor) suspend() {
	sessionLeader, _ := unix.Getsid(0)
	switch {
	case s.tty < 0:
	case sessionLeader == os.Getpid():
		s.forward(unix.SIGCONT)
	case foregroundProcessGroup(s.tty) == unix.Getpgrp():
		// The child was stopped because it read from the terminal in the background.
		// Then the user moved keyhatch to the foreground with the shell command fg.
		// The shell sends no SIGCONT, because keyhatch itself was not stopped.
		s.forward(unix.SIGCONT)
	default:
		s.reclaimTerminal()
		unix.Kill(unix.Getpid(), unix.SIGSTOP)
	}
}

// reclaimTerminal makes keyhatch's process group the foreground group again if the child's
// group is the foreground group. Otherwise the next command in keyhatch's group, for example
// the next command of a script, could not read from the terminal.
func (s *supervisor) reclaimTerminal() {
	if s.tty >= 0 && foregroundProcessGroup(s.tty) == s.pid {
		s.setForegroundGroup(unix.Getpgrp())
	}
}

// setForegroundGroup makes group the terminal's foreground group. If a background process
// does this, the kernel sends SIGTTOU, which stops the process unless the process ignores
// SIGTTOU (tcsetpgrp(3)).
func (s *supervisor) setForegroundGroup(group int) {
	signal.Ignore(unix.SIGTTOU)
	unix.IoctlSetPointerInt(s.tty, unix.TIOCSPGRP, group)
	signal.Reset(unix.SIGTTOU)
}

// foregroundProcessGroup returns the ID of the terminal's foreground process group, or 0
// after an error.
func foregroundProcessGroup(tty int) (group int) {
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return group
}

// openTerminal opens the controlling terminal. If keyhatch has no controlling terminal,
// openTerminal returns -1.
func openTerminal() (tty int) {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// forwardedSignals returns the signals that Run forwards to the child. Run does not forward:
//
//   - signals that cannot be caught;
//   - signals that concern keyhatch itself: faults, SIGCHLD, SIGPIPE, and SIGURG and SIGPROF,
//     which the Go runtime uses;
//   - SIGTTIN and SIGTTOU, with which the terminal stops a background process;
//   - signals that keyhatch ignores, for example SIGHUP under nohup, because the child
//     inherits the ignored signals.
func forwardedSignals() []os.Signal {
	var signals []os.Signal
	for sig := unix.Signal(1); sig <= 64; sig++ {
		switch sig {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGPROF,
			unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS, unix.SIGABRT,
			unix.SIGTTIN, unix.SIGTTOU:
			continue
		case 32, 33, 34: // signals that the C library uses (signal(7))
			continue
		}
		if !signal.Ignored(sig) {
			signals = append(signals, sig)
		}
	}
	return signals
}
