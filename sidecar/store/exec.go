package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// ErrCommand is the error of Read if the command of an Exec failed. An error of an Exec does not
// contain the command or a value in its output, because each of them can contain a secret. The
// error can contain a valid name in the output.
var ErrCommand = errors.New("the command of the exec: store failed")

// An Exec is a store that reads the standard output of a command. The standard error of the
// command is the standard error of the process that calls Read (see ChildReader).
type Exec struct {
	Command string // /bin/sh -c runs this command
	Format  Format // the format of the command's standard output
	// WatchPaths contains files and directories. The sidecar runs the command when one of
	// these files or directories changes, and at each poll.
	WatchPaths []string
	Timeout    time.Duration // the maximum duration of one run of the command
}

// Read waits until no process has a file in WatchPaths open for writing, but at most for
// maxUnstablePeriod. It then runs the command and parses the command's standard output. Read
// returns an error if the exit code is not 0, if the output is too large or not valid, if the
// command exceeds the timeout, or if a background process keeps the output open. For an empty
// value, Read uses the old value, or omits the secret if there is no old value.
func (e Exec) Read(ctx context.Context, previous *Reading) (*Reading, error) {
	for deadline := time.Now().Add(maxUnstablePeriod); e.isBeingWritten() && time.Now().Before(deadline); {
		if err := sleep(ctx, stablePeriod/2); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", e.Command)
	// Run the command in a new process group, so that the timeout also kills the processes that the
	// command started. If this process is killed, the kernel kills the shell (Pdeathsig). The kernel
	// also does this when the thread that has started the shell ends, but the Go runtime does not end
	// this thread.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	stdout := &cappedBuffer{max: schema.MaxPush, onOverflow: cancel}
	defer func() { clear(stdout.buf.Bytes()) }()
	cmd.Stdout, cmd.Stderr = stdout, os.Stderr
	err := cmd.Run()
	if cmd.Process != nil {
		// Kill the remaining background processes. Otherwise each poll would start more of
		// them. While a process belongs to the command's process group, the kernel does not
		// reuse the group's ID. If the group is empty, the ID is free, but the kernel gives
		// out all other IDs before it uses the same ID again.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		err = errors.New("a background process still has the command's output open: redirect the output of the background process, or let the command wait for the background process")
	case stdout.overflowed:
		err = fmt.Errorf("the output has more than %d bytes, the maximum size of a push", schema.MaxPush)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("timed out after %v", e.Timeout)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCommand, err)
	}
	set, lines, err := e.Format.parse(stdout.buf.Bytes())
	if err != nil {
		return nil, fmt.Errorf("the output of the command of the exec: store is invalid: %w", err)
	}
	r := &Reading{set, newState()}
	if previous == nil {
		previous = &Reading{}
	}
	r.keepOldOfEmpty("exec", previous, lines)
	r.checkPEM("exec")
	return r, nil
}

// isBeingWritten reports whether a process has a file in WatchPaths, or a file of a directory in
// WatchPaths, open for writing.
func (e Exec) isBeingWritten() bool {
	for _, path := range e.WatchPaths {
		paths := []string{path}
		entries, _ := os.ReadDir(path) // returns no entries if path is a file
		for _, entry := range entries {
			paths = append(paths, filepath.Join(path, entry.Name()))
		}
		for _, path := range paths {
			if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
				continue
			}
			if f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
				writers := leaseFile(f)
				f.Close()
				if writers == writersExist {
					return true
				}
			}
		}
	}
	return false
}

// A cappedBuffer stores the first max bytes that are written to it. If more bytes are written,
// it discards these bytes and calls onOverflow.
type cappedBuffer struct {
	buf        bytes.Buffer
	max        int
	overflowed bool
	onOverflow func()
}

func (c *cappedBuffer) Write(p []byte) (int, error) {
	room := c.max - c.buf.Len()
	if len(p) > room {
		c.overflowed = true
		c.onOverflow()
		c.buf.Write(p[:room])
		return len(p), nil
	}
	return c.buf.Write(p)
}

// WatchDirs returns the result of Dir.WatchDirs for each path in WatchPaths.
func (e Exec) WatchDirs() (dirs []string) {
	for _, path := range e.WatchPaths {
		dirs = append(dirs, Dir{Path: path}.WatchDirs()...)
	}
	return dirs
}

// IsAffectedBy reports whether a file event at path can mean that a file or directory in
// WatchPaths changed. If all paths in WatchPaths are in one directory, it returns false for the
// other files in this directory.
func (e Exec) IsAffectedBy(path string) bool {
	for _, watched := range e.WatchPaths {
		if (Dir{Path: watched}).IsAffectedBy(path) {
			return true
		}
	}
	return false
}
