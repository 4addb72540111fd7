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

// OnChange is what becomes of a kept command when its secrets change: a restart,
// a signal, or, where it is zero, nothing.
type OnChange struct {
	Restart bool
	Signal  syscall.Signal
}

// ParseOnChange reads restart, signal:NAME or none.
func ParseOnChange(text string) (OnChange, error) {
	switch text {
	case "restart":
		return OnChange{Restart: true}, nil
	case "none":
		return OnChange{}, nil
	}
	if name, ok := strings.CutPrefix(text, "signal:"); ok {
		name = strings.ToUpper(name)
		if !strings.HasPrefix(name, "SIG") {
			name = "SIG" + name
		}
		if number := unix.SignalNum(name); number != 0 {
			return OnChange{Signal: number}, nil
		}
	}
	return OnChange{}, fmt.Errorf("it is restart, none, or signal: and a signal's name, as in signal:HUP")
}

// A Child is a command that is kept rather than become, so that it can be told
// of changes. It leads a process group, which has the terminal when we had it.
type Child struct {
	Path     string
	Args     []string
	OnChange OnChange
	Grace    time.Duration // from SIGTERM to SIGKILL, of a restart
	// Changes brings the environment of each change.
	Changes <-chan []string
}

// keeping is the state of Run. One goroutine owns it: signals, the child's end
// among them, come to it by channels.
type keeping struct {
	Child
	tty  int // the controlling terminal; -1: none
	pid  int // of the child, and of its group
	exit int // of the child, once it has ended

	ended bool
	next  []string         // the environment to start again with; nil: no restart
	grace <-chan time.Time // of the restart; nil, and so never, without one
}

// Run starts the command, passes signals on to it, and returns its exit code, or
// 128 and the number of the signal that ended it. An error says that it could
// not be started, at first or again.
//
// What a restart ends is the whole group: no process that has the old secrets,
// or the port, stays behind. To know when it is gone, orphans must come to us.
func (c Child) Run(environment []string) (int, error) {
	k := &keeping{Child: c}
	children := make(chan os.Signal, 1) // one says it for many
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, passed()...)
	defer signal.Stop(signals)
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	k.tty = openTerminal()
	if k.tty >= 0 {
		defer unix.Close(k.tty)
	}
	if err := k.start(environment); err != nil {
		return 0, err
	}
	for {
		select {
		case now := <-k.Changes:
			k.changed(now)
		case s := <-signals:
			k.pass(s.(syscall.Signal))
		case <-children:
			k.reap()
		case <-k.grace:
			unix.Kill(-k.pid, unix.SIGKILL)
		}
		switch {
		case k.ended && k.next == nil:
			return k.exit, nil
		case k.ended && unix.Kill(-k.pid, 0) == unix.ESRCH:
			if err := k.start(k.next); err != nil {
				return 0, err
			}
		}
	}
}

// start starts the command, which takes the terminal over where it is ours.
func (k *keeping) start(environment []string) (err error) {
	foreground := k.tty >= 0 && foregroundOf(k.tty) == unix.Getpgrp()
	k.ended, k.next, k.grace = false, nil, nil
	k.pid, err = syscall.ForkExec(k.Path, k.Args, &syscall.ProcAttr{
		Env:   environment,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Foreground: foreground, Ctty: k.tty},
	})
	return err
}

func (k *keeping) changed(environment []string) {
	switch {
	case k.OnChange.Restart:
		k.next = environment
		if k.grace == nil {
			k.grace = time.After(k.Grace)
			unix.Kill(-k.pid, unix.SIGTERM)
			unix.Kill(-k.pid, unix.SIGCONT) // one that is stopped would never see it
		}
	case k.OnChange.Signal != 0:
		unix.Kill(k.pid, k.OnChange.Signal)
	}
}

// pass hands a signal to the child.
func (k *keeping) pass(s syscall.Signal) {
	switch s {
	case unix.SIGCONT:
		// After fg the terminal is ours to give; after bg it is not.
		if k.tty >= 0 && foregroundOf(k.tty) == unix.Getpgrp() {
			k.setForeground(k.pid)
		}
		unix.Kill(-k.pid, unix.SIGCONT)
		return
	case unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP:
		k.next = nil // whoever wants an end wants no restart
	}
	if !k.ended {
		unix.Kill(k.pid, s)
	}
}

// reap waits for every process that has ended: the child, and orphans.
func (k *keeping) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG|unix.WUNTRACED, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || pid <= 0:
			return
		case pid != k.pid:
			continue
		case status.Stopped():
			k.suspend()
			continue
		case status.Exited():
			k.exit = status.ExitStatus()
		default:
			k.exit = 128 + int(status.Signal())
		}
		k.ended = true
		k.takeTerminal()
	}
}

// suspend stops us too when the child was stopped, by Ctrl-Z for one, so that
// the shell we run in notices. SIGCONT wakes both. Who leads the session, as with
// docker run -it or exec -it, has no shell that would send one.
func (k *keeping) suspend() {
	leads, _ := unix.Getsid(0)
	switch {
	case k.tty < 0:
	case leads == os.Getpid():
		k.pass(unix.SIGCONT)
	case foregroundOf(k.tty) == unix.Getpgrp():
		// In the background it wanted to read. With an fg meanwhile it may, and a
		// shell that had not seen us stop sends no SIGCONT.
		k.pass(unix.SIGCONT)
	default:
		k.takeTerminal()
		unix.Kill(unix.Getpid(), unix.SIGSTOP)
	}
}

// takeTerminal takes back what the child's group was given: whoever runs next in
// our group could not read from it.
func (k *keeping) takeTerminal() {
	if k.tty >= 0 && foregroundOf(k.tty) == k.pid {
		k.setForeground(unix.Getpgrp())
	}
}

// setForeground gives the terminal to a group. Who does that from the background
// is stopped with SIGTTOU unless it is ignored (tcsetpgrp(3)).
func (k *keeping) setForeground(group int) {
	signal.Ignore(unix.SIGTTOU)
	unix.IoctlSetPointerInt(k.tty, unix.TIOCSPGRP, group)
	signal.Reset(unix.SIGTTOU)
}

func foregroundOf(tty int) int {
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return group
}

func openTerminal() int {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// passed are the signals that are passed on: all but those that cannot be
// caught, that are about ourselves (faults, our children, our pipes, the Go
// runtime's SIGURG and SIGPROF), and that stop a process for the terminal's sake.
func passed() []os.Signal {
	var all []os.Signal
	for s := unix.Signal(1); s <= 64; s++ {
		switch s {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGPROF,
			unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS, unix.SIGABRT,
			unix.SIGTTIN, unix.SIGTTOU:
			continue
		case 32, 33, 34: // the C library's own
			continue
		}
		if !signal.Ignored(s) { // nohup means the command too
			all = append(all, s)
		}
	}
	return all
}
