package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/term"
)

// maxStderr is the maximum number of bytes of a child process's standard error that are shown on
// the terminal for one read.
const maxStderr = 16 << 10

// A terminalWriter copies up to remaining bytes to a terminal, and discards all other bytes.
type terminalWriter struct {
	terminal  *os.File
	remaining int
}

func (w *terminalWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.remaining)
	w.remaining -= n
	w.terminal.Write(p[:n]) // an error is ignored, because the read of the store can continue
	return len(p), nil
}

// ReadInChild reads a store in a short-lived child process, because the parsers of the
// formats leave copies of the secrets in memory. The kernel frees this memory when the child
// process ends. The child process runs the same program with the given arguments, and must
// call WriteResult with its standard input and its standard output. previous is the result of
// the last call that returned no error, or empty if there was none.
func ReadInChild(ctx context.Context, args []string, previous LockedReading) (LockedReading, error) {
	// Unlike the path of the program, /proc/self/exe still refers to the same version after an
	// upgrade has replaced the program.
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	// Use a new process group. Otherwise Ctrl-C in a terminal would end the child process before
	// the sidecar knows that the sidecar must exit, and the sidecar would log an error.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// On SIGTERM, the child process also ends the command of an Exec.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	// The standard error of an Exec's command can contain secrets. So it is only shown on a
	// terminal, and never written to a log.
	if term.IsTerminal(int(os.Stderr.Fd())) {
		cmd.Stderr = &terminalWriter{os.Stderr, maxStderr}
	}
	// Do not use cmd.Stdin, because package exec would copy the secrets through ordinary memory.
	input, err := cmd.StdinPipe()
	if err != nil {
		return LockedReading{}, fmt.Errorf("cannot start the process that reads the store: %w", err)
	}
	output, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		input.Close()
		return LockedReading{}, fmt.Errorf("cannot start the process that reads the store: %w", err)
	}
	// If Write fails, the child process has ended, and ReadResult returns an error. The two
	// processes do not block each other, because the child process reads all of its input
	// before it writes.
	previous.Write(input)
	input.Close()
	reading, err := ReadResult(output)
	output.Close() // otherwise, after an error of ReadResult, the child process could block
	waitErr := cmd.Wait()
	switch {
	case err != nil && ctx.Err() != nil:
		return LockedReading{}, ctx.Err()
	case errors.Is(err, errIncomplete):
		if waitErr != nil {
			err = waitErr // explains why the result is incomplete
		}
		return LockedReading{}, fmt.Errorf("the process that reads the store has failed: %w", err)
	}
	return reading, err
}
