package testenv

import (
	"os"
	"syscall"
)

// ShellExitCode returns the exit code that a shell reports for a process that has ended. If a
// signal ended the process, the exit code is 128 plus the signal's number.
func ShellExitCode(state *os.ProcessState) int {
	if status := state.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}
