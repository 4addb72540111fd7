package devcontainer

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// ChangeAction selects the effect of changed secrets on a Child: a restart, a signal, or no
// effect. The zero value means no effect.
type ChangeAction struct {
	Restart bool
	Signal  syscall.Signal
}

// ParseChangeAction parses the text restart, signal:NAME, or none. NAME is the name of a
// signal, for example HUP or SIGHUP. Any other text is an error.
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

// killTimeout is the time after SIGKILL after which Child.Run reports the processes that have
// not ended, and no longer waits for the descendants of the command.
const killTimeout = 10 * time.Second

// The first immediateRestarts restarts begin at once. If the secrets continue to change, the
// command is restarted at most once per restartInterval. Without this limit, two sidecars with
// different secrets that push to the same broker could cause a restart once per second.
const (
	immediateRestarts = 3
	restartInterval   = 10 * time.Second
)

// A Child is a command that runs as a child process, so that it can be restarted or
// signaled when secrets change. The command belongs to keyhatch's process group, as it would
// without keyhatch. Therefore the terminal and the shell stop, continue, and interrupt the
// command together with keyhatch and with the other programs of a pipeline.
type Child struct {
	Path        string
	Args        []string
	OnChange    ChangeAction
	GracePeriod time.Duration // time between SIGTERM and SIGKILL
	// Updates provides the new environment after each change of the secrets. Run receives
	// from this channel until it returns.
	Updates <-chan []string
	// Report gets a message about a delayed restart, or about a process that does not end
	// after SIGKILL.
	Report func(message string)
}

// supervisor is the state of Child.Run. Only the goroutine that calls Child.Run uses this
// state. That goroutine receives signals, updates, and timer events from channels.
type supervisor struct {
	Child
	terminal terminal
	earlier  map[int]bool // children that this process had before it started the command
	pid      int          // process ID of the command
	exitCode int          // exit code of the command; valid if exited is true

	exited             bool
	terminating        bool             // keyhatch has received SIGTERM
	restartEnvironment []string         // environment for the pending restart; nil if no restart is pending
	ending             bool             // the command's processes have received SIGTERM
	killed             bool             // the command's processes have received SIGKILL
	endTimer           <-chan time.Time // fires when GracePeriod or killTimeout ends

	restartLimiter     *rate.Limiter
	delayTimer         <-chan time.Time // fires when the delayed restart may begin; nil if no restart is delayed
	delayedEnvironment []string         // environment for the delayed restart
}

// Run starts the command, forwards signals to the command (see forwardedSignals), and returns
// the command's exit code. If a signal ended the command, the exit code is 128 plus the
// signal's number. Run returns an error only if the command could not be started or restarted.
//
// A restart ends the command and its descendants, so that no process still has the old
// secrets or a listening port. If a signal ended the command, or if the command ended after
// keyhatch received SIGTERM, Run also ends the descendants that are still running. Run makes
// keyhatch the parent of orphaned descendants (prctl(2), PR_SET_CHILD_SUBREAPER), because Run
// could not find them otherwise.
func (c Child) Run(environment []string) (exitCode int, err error) {
	s := &supervisor{
		Child: c, earlier: map[int]bool{},
		restartLimiter: rate.NewLimiter(rate.Every(restartInterval), immediateRestarts),
	}
	childEnded := make(chan os.Signal, 1) // a buffer for one signal is enough, because reap handles all ended children
	signal.Notify(childEnded, syscall.SIGCHLD)
	defer signal.Stop(childEnded)
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, forwardedSignals()...)
	defer signal.Stop(signals)
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	for _, p := range descendants(0, nil) {
		s.earlier[p.pid] = true
	}
	s.terminal = openTerminal()
	defer s.terminal.close()
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
		case <-s.endTimer:
			s.escalate()
		case <-s.delayTimer:
			s.endDelay()
		}
		if !s.exited || s.mustWait() {
			continue
		}
		// A command that was killed cannot restore the terminal settings that it changed. So
		// Run restores the settings.
		if s.ending || s.restartEnvironment != nil {
			s.terminal.restoreSettings()
		}
		if s.restartEnvironment == nil {
			return s.exitCode, nil
		}
		if err := s.start(s.restartEnvironment); err != nil {
			return 0, err
		}
	}
}

// start starts the command with the environment, and resets the fields that describe the last
// command.
func (s *supervisor) start(environment []string) (err error) {
	s.exited, s.restartEnvironment, s.ending, s.killed, s.endTimer = false, nil, false, false, nil
	s.pid, err = syscall.ForkExec(s.Path, s.Args, &syscall.ProcAttr{
		Env:   environment,
		Files: []uintptr{0, 1, 2},
		// An earlier command may have made its own process group the foreground group, as an
		// interactive shell does. If that group has ended, the new command makes keyhatch's
		// group the foreground group again.
		Sys: &syscall.SysProcAttr{Foreground: s.terminal.foregroundGroupEnded(), Pgid: unix.Getpgrp(), Ctty: s.terminal.fd},
	})
	return err
}

// applyUpdate begins a restart with the new environment, sends a signal to the command, or
// does nothing, as OnChange requires.
func (s *supervisor) applyUpdate(environment []string) {
	switch {
	case s.terminating || s.exited && s.restartEnvironment == nil:
		// Ignore the update: keyhatch has received SIGTERM, or the command has ended by itself.
	case s.OnChange.Restart:
		s.restart(environment)
	case s.OnChange.Signal != 0:
		unix.Kill(s.pid, s.OnChange.Signal)
	}
}

// restart begins a restart with the new environment, or delays the restart if the command
// was restarted too often.
func (s *supervisor) restart(environment []string) {
	switch {
	case s.delayTimer != nil:
		s.delayedEnvironment = environment
		return
	case s.restartEnvironment == nil:
		if delay := s.restartLimiter.Reserve().Delay(); delay > 0 {
			s.delayTimer, s.delayedEnvironment = time.After(delay), environment
			s.Report(fmt.Sprintf("the secrets change too often, so the next restart of the command is delayed by %v; if two sidecars push to the same broker, stop one of them", (delay + time.Second - 1).Truncate(time.Second)))
			return
		}
	}
	s.restartEnvironment = environment
	s.end()
}

// endDelay begins the delayed restart.
func (s *supervisor) endDelay() {
	s.delayTimer, s.restartEnvironment = nil, s.delayedEnvironment
	s.end()
}

// end sends SIGTERM to all processes of the command, unless end was already called. After
// GracePeriod, Run calls escalate.
func (s *supervisor) end() {
	if s.ending {
		return
	}
	s.ending, s.endTimer = true, time.After(s.GracePeriod)
	s.signalAll(unix.SIGTERM)
	s.signalAll(unix.SIGCONT) // a stopped process handles SIGTERM only after SIGCONT
}

// escalate is called when processes of the command have not ended in time, or when the user
// does not want to wait for them. The first call kills these processes. The next call, after
// killTimeout, reports the processes that have not ended, for example because they belong to
// another user. Run then waits only for the command itself.
func (s *supervisor) escalate() {
	if !s.killed {
		s.killed, s.endTimer = true, time.After(killTimeout)
		s.signalAll(unix.SIGKILL)
		return
	}
	for _, p := range s.processes() {
		s.Report(fmt.Sprintf("the process %d (%s) did not end after SIGKILL, so it keeps the old secrets", p.pid, p.name))
	}
	s.ending, s.killed, s.endTimer = false, false, nil
	if !s.exited {
		s.restartEnvironment = nil // do not start a second command, because both commands could use the same port or files
	}
}

// mustWait reports whether Run must still wait for descendants of the command. Run calls
// mustWait only after the command itself has ended.
func (s *supervisor) mustWait() bool {
	if !s.ending || len(s.processes()) == 0 {
		return false
	}
	if s.killed {
		// Before SIGKILL reached a process, the process may have started another process. So
		// signal all processes again.
		s.signalAll(unix.SIGKILL)
	}
	return true
}

// processes returns the command and its descendants, except the zombies that are not children
// of keyhatch. Only the parent of a zombie can remove the zombie, and a parent that does not
// do this must not delay a restart.
func (s *supervisor) processes() []process {
	return slices.DeleteFunc(descendants(s.pid, s.earlier), func(p process) bool { return p.zombie && p.parent != os.Getpid() })
}

func (s *supervisor) signalAll(sig syscall.Signal) {
	for _, p := range s.processes() {
		unix.Kill(p.pid, sig)
	}
}

// forward sends the command a signal that keyhatch received.
func (s *supervisor) forward(sig syscall.Signal) {
	switch sig {
	case unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP:
		// Cancel a pending restart, because the user wants to end the command.
		s.restartEnvironment, s.delayTimer = nil, nil
		// After SIGINT, SIGQUIT, or SIGHUP, the command can continue, so only SIGTERM sets
		// terminating.
		s.terminating = s.terminating || sig == unix.SIGTERM
		if s.exited && !s.killed {
			s.escalate() // the command has ended, and the user does not want to wait for its descendants
		}
	}
	if s.exited || isSentByTerminal(sig) && s.terminal.isInForeground() {
		return
	}
	unix.Kill(s.pid, sig)
}

// isSentByTerminal reports whether the terminal sends sig to all processes of its foreground
// process group. If keyhatch is in this group, the command has received the signal, too. Then
// keyhatch does not forward the signal, because many programs abort their shutdown after a
// second SIGINT.
func isSentByTerminal(sig syscall.Signal) bool {
	return sig == unix.SIGINT || sig == unix.SIGQUIT || sig == unix.SIGWINCH
}

// reap collects the status of every child process of keyhatch that has ended. These
// processes are the command, its orphaned descendants, and the children that keyhatch had
// before it started the command.
func (s *supervisor) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || pid <= 0:
			return
		}
		delete(s.earlier, pid)
		if pid != s.pid || s.exited {
			continue
		}
		s.exited, s.exitCode = true, status.ExitStatus()
		if status.Signaled() {
			s.exitCode = 128 + int(status.Signal())
		}
		if status.Signaled() || s.terminating {
			s.end()
		}
	}
}

// forwardedSignals returns the signals that Run forwards to the command. Run does not
// forward:
//
//   - signals that cannot be caught;
//   - signals that concern keyhatch itself: faults, SIGCHLD, SIGPIPE, and SIGURG and SIGPROF,
//     which the Go runtime uses;
//   - SIGTSTP, SIGTTIN, and SIGTTOU, with which the terminal stops a process group, and
//     SIGCONT, with which the shell continues a process group;
//   - the signals 32, 33, and 34, which the C library uses;
//   - signals that keyhatch ignores, for example SIGHUP under nohup, because the command
//     inherits the ignored signals.
func forwardedSignals() []os.Signal {
	var signals []os.Signal
	for sig := unix.Signal(1); sig <= 64; sig++ {
		switch sig {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGPROF,
			unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS, unix.SIGABRT,
			unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGCONT:
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
