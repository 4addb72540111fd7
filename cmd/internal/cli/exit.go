package cli

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// exitInterrupted is the exit code that Run returns if SIGINT canceled the command.
const exitInterrupted = 128 + int(syscall.SIGINT)

// Exit ends this process with an exit code that Run returned. If the code is 130, Exit ends the
// process with SIGINT. A shell then reports the same code, and also ends the loop or the script
// that ran this process. If the process called os.Exit(130) instead, bash would continue the
// loop.
//
// SIGINT does not end process 1 of a container. SIGINT also does not end a process that ignored
// SIGINT at its start, because signal.Reset makes the process ignore SIGINT again. In both cases,
// Exit calls os.Exit(130).
func Exit(code int) {
	if code == exitInterrupted && os.Getpid() != 1 {
		signal.Reset(syscall.SIGINT)
		// Tgkill sends the signal to the calling thread, so that the signal ends the process
		// before Tgkill returns.
		runtime.LockOSThread()
		unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGINT)
	}
	os.Exit(code)
}
