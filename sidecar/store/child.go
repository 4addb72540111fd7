package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// maxStderr is the maximum number of bytes of a child process's standard error that are shown on
// the terminal for one read.
const maxStderr = 16 << 10

// A terminalWriter copies bytes to a terminal until remaining is 0, and discards all later bytes.
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

// A ChildReader reads a store in short-lived child processes, because the parsers of the formats
// leave copies of the secrets in memory. The kernel frees this memory when a child process ends.
type ChildReader struct {
	// Args contains the arguments of the child process, which runs the same program. The child
	// process must call WriteResult with its standard input and its standard output.
	Args []string
	// Timeout is the maximum duration of one read (see Merged.MaxReadTime).
	Timeout time.Duration
	// Warn is called once if other processes of the same uid can read the secrets from a child
	// process. Warn can be nil.
	Warn func(error)

	program     *os.File      // the copy of the program, or nil
	programPath string        // the program that the child processes execute; "" before the first read
	isStarting  chan struct{} // contains one element while a child process is starting; nil before the first read
}

// terminateTimeout is how long a child process can run after it has received SIGTERM. Then it receives
// SIGKILL.
const terminateTimeout = 2 * time.Second

// Read reads the store. previous is the result of the last call that returned no error, or empty if
// there was none. Only one call of Read can run at a time.
func (c *ChildReader) Read(ctx context.Context, previous LockedReading) (LockedReading, error) {
	readContext, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	child, err := c.startChild(readContext)
	if err != nil {
		return LockedReading{}, c.withContext(ctx, readContext, fmt.Errorf("cannot start the process that reads the store: %w", err))
	}
	// If Write fails, the child process has ended, and ReadResult returns an error. The two
	// processes do not block each other, because the child process reads all of its input
	// before it writes.
	previous.Write(child.input)
	child.input.Close()
	reading, err := ReadResult(child.output)
	child.output.Close() // otherwise, after an error of ReadResult, the child process could block
	waitErr := child.cmd.Wait()
	// Do not use the output of a child process that has failed. Another process of the same uid can
	// have killed it or, if Warn was called, can have written to its output.
	if !child.cmd.ProcessState.Success() {
		reading.Set.Free()
		return LockedReading{}, c.withContext(ctx, readContext, fmt.Errorf("the process that reads the store has failed: %w", waitErr))
	}
	if errors.Is(err, errIncomplete) {
		return LockedReading{}, c.withContext(ctx, readContext, fmt.Errorf("the process that reads the store has failed: %w", err))
	}
	return reading, err
}

// withContext replaces err if ctx has ended, or if the read has exceeded its timeout.
func (c *ChildReader) withContext(ctx, readContext context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case readContext.Err() != nil:
		return fmt.Errorf("the process that reads the store did not end within %v: a signal may have stopped the process", c.Timeout)
	}
	return err
}

// A childProcess is a process that reads a store.
type childProcess struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	output io.ReadCloser
}

// startChild starts a child process. If a signal stops the new process before it executes the
// program, the system call that starts the process does not return. startChild then returns when ctx
// ends, and the next calls of startChild start no process until the system call returns.
func (c *ChildReader) startChild(ctx context.Context) (*childProcess, error) {
	if c.isStarting == nil {
		c.isStarting = make(chan struct{}, 1)
	}
	select {
	case c.isStarting <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	type started struct {
		child *childProcess
		err   error
	}
	results := make(chan started)
	go func() { // ends when the process has started, even if ctx has ended before
		child, err := c.start(ctx)
		<-c.isStarting
		select {
		case results <- started{child, err}:
			return
		case <-ctx.Done():
		}
		if err == nil { // startChild has returned already, so end the process
			child.input.Close()
			child.output.Close()
			child.cmd.Wait()
		}
	}()
	select {
	case result := <-results:
		return result.child, result.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// start starts a child process that executes a copy of the program. If the system does not allow this, the
// child process executes the program itself.
func (c *ChildReader) start(ctx context.Context) (*childProcess, error) {
	if c.programPath != "" {
		return c.startProgram(ctx, c.programPath)
	}
	program, copyErr := copyProgram()
	if copyErr == nil {
		// The path is valid in the new process, because the new process has the same file
		// descriptors until it executes the program.
		path := fmt.Sprintf("/proc/self/fd/%d", program.Fd())
		var child *childProcess
		if child, copyErr = c.startProgram(ctx, path); copyErr == nil {
			c.program, c.programPath = program, path
			return child, nil
		}
		program.Close()
	}
	if !slices.ContainsFunc(copyForbidden, func(errno error) bool { return errors.Is(copyErr, errno) }) {
		return nil, copyErr
	}
	child, err := c.startProgram(ctx, ownProgram)
	if err != nil {
		return nil, err
	}
	c.programPath = ownProgram
	if c.Warn != nil && !isUnreadable(copyErr) {
		c.Warn(copyErr)
	}
	return child, nil
}

// copyForbidden contains the errors of a system that does not allow the execution of a memfd. Another
// process of the same uid can cause the other errors, for example EMFILE, with prlimit(2). So these errors
// must not make the child processes execute the readable program.
var copyForbidden = []error{unix.EACCES, unix.EPERM, unix.ENOSYS, unix.ENOEXEC}

// startProgram starts a child process that executes the program with this path.
func (c *ChildReader) startProgram(ctx context.Context, path string) (*childProcess, error) {
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Args[0] = os.Args[0]
	// Use a new process group. Otherwise Ctrl-C in a terminal would end the child process before
	// the sidecar knows that the sidecar must exit, and the sidecar would log an error.
	//
	// If the sidecar is killed, the child process receives SIGTERM.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	// On SIGTERM, the child process also ends the command of an Exec.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = terminateTimeout
	// The standard error of an Exec's command can contain secrets. So it is only shown on a
	// terminal, and never written to a log.
	if term.IsTerminal(int(os.Stderr.Fd())) {
		cmd.Stderr = &terminalWriter{os.Stderr, maxStderr}
	}
	// Do not use cmd.Stdin, because package exec would copy the secrets through ordinary memory.
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		input.Close()
		return nil, err
	}
	return &childProcess{cmd, input, output}, nil
}
