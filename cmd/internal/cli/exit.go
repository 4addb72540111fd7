package cli

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// exitInterrupted is the exit code of a command that SIGINT ended.
const exitInterrupted = 128 + int(syscall.SIGINT)

// Exit ends this process with an exit code that Run returned. If the code is 130, Exit ends the
// process with SIGINT. A shell then reports the same code, but it also ends its loop or its
// script. If the process exited with the code, bash would continue.
//
// Process 1 of a container cannot end itself with a signal. A process that ignored SIGINT when
// it started ignores the signal again. In both cases, Exit uses the code.
func Exit(code int) {
	if code == exitInterrupted && os.Getpid() != 1 {
		signal.Reset(syscall.SIGINT)
		// The signal is sent to the calling thread, so that it ends the process before Tgkill
		// returns.
		runtime.LockOSThread()
		unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGINT)
	}
	os.Exit(code)
}
