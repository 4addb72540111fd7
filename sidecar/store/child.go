package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// ReadInChild reads a store in a short-lived child process, because the parsers of the
// formats leave copies of the secrets in memory. The kernel frees this memory when the child
// process ends. The child process runs the same program with the given arguments, and must
// call WriteResult with its standard input and its standard output. previous is the result of
// the last call that returned no error, or empty.
func ReadInChild(ctx context.Context, args []string, previous LockedReading) (LockedReading, error) {
	// Unlike the path of the program, /proc/self/exe still refers to the same version after an
	// upgrade has replaced the program.
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	// Otherwise Ctrl-C in a terminal would end the child process before the sidecar knows that
	// it must exit, and the sidecar would log an error.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// On SIGTERM, the child process also ends the command of an Exec.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
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
	// If Write fails, the child process has ended, and ReadResult returns an error. The child
	// process reads all of its input before it writes.
	previous.Write(input)
	input.Close()
	reading, err := ReadResult(output)
	output.Close() // otherwise, after an error of ReadResult, the child process could block
	waitErr := cmd.Wait()
	switch {
	case err != nil && ctx.Err() != nil:
		return LockedReading{}, ctx.Err()
	case errors.Is(err, errIncomplete):
		return LockedReading{}, fmt.Errorf("the process that reads the store has failed: %w", waitErr)
	}
	return reading, err
}
