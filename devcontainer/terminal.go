package devcontainer

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A terminal is the controlling terminal of this process.
type terminal struct {
	fd int // -1 if this process has no controlling terminal
	// settings are the settings that the terminal had when openTerminal was called. They are
	// nil if this process must not restore them.
	settings *unix.Termios
}

// openTerminal opens the controlling terminal, and saves its settings. It does not save the
// settings if standard input or standard output is not a terminal, because another program of a
// pipeline may then change the settings, as less does. It also does not save the settings if this
// process is in the background, because the settings may then be those of the shell's prompt.
func openTerminal() (t terminal) {
	var err error
	if t.fd, err = unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		return terminal{fd: -1}
	}
	if term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd())) && t.isInForeground() {
		t.settings, _ = unix.IoctlGetTermios(t.fd, unix.TCGETS)
	}
	return t
}

func (t terminal) close() {
	if t.fd >= 0 {
		unix.Close(t.fd)
	}
}

// restoreSettings restores the settings that openTerminal saved. It does nothing if another
// running process group is in the foreground.
func (t terminal) restoreSettings() {
	if t.settings == nil || !t.isInForeground() && !t.foregroundGroupEnded() {
		return
	}
	// This thread must block SIGTTOU. Otherwise, if this process is not in the foreground process
	// group, the kernel would send SIGTTOU, which stops the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var blocked, earlier unix.Sigset_t
	blocked.Val[0] = 1 << (unix.SIGTTOU - 1)
	if unix.PthreadSigmask(unix.SIG_BLOCK, &blocked, &earlier) != nil {
		return
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &earlier, nil)
	unix.IoctlSetTermios(t.fd, unix.TCSETS, t.settings)
}

// isInForeground reports whether this process belongs to the terminal's foreground process
// group.
func (t terminal) isInForeground() bool {
	return t.fd >= 0 && t.foregroundProcessGroup() == unix.Getpgrp()
}

// foregroundGroupEnded reports whether all processes of the terminal's foreground process
// group have ended.
func (t terminal) foregroundGroupEnded() bool {
	group := t.foregroundProcessGroup()
	return group > 0 && unix.Kill(-group, 0) == unix.ESRCH
}

// foregroundProcessGroup returns the ID of the terminal's foreground process group, or 0
// after an error.
func (t terminal) foregroundProcessGroup() (group int) {
	group, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return group
}
