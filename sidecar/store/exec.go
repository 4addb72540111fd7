package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// maxStderr is the maximum length, in bytes, of a command's standard error in an error
// message.
const maxStderr = 2 << 10

// An Exec is a store that reads the standard output of a command.
type Exec struct {
	Command string // for /bin/sh -c
	Format  Format
	// WatchPaths are files and directories. The sidecar runs the command when one of
	// them changes, and at every poll.
	WatchPaths []string
	Timeout    time.Duration // for one run of the command
}

// Read runs the command and parses its standard output. If the exit code is not 0, the
// output is too large, or the command exceeds the timeout, Read returns an error and
// ignores the output.
func (e Exec) Read(ctx context.Context) (Set, error) {
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", e.Command)
	// The command gets its own process group, so that the timeout also kills the
	// processes that the command started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	stdout, stderr := &cappedBuffer{max: schema.MaxPush, onOverflow: cancel}, &cappedBuffer{max: maxStderr}
	defer func() { clear(stdout.buf.Bytes()); clear(stderr.buf.Bytes()) }()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	var set Set
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		// The background process still belongs to the group, so the kernel cannot have
		// given the group's ID to other processes.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		err = errors.New("a background process keeps the output of the command open: redirect the output of that process, or let the command wait for the process")
	case stdout.overflowed:
		err = fmt.Errorf("its output has more than %d bytes, the maximum size of a push", schema.MaxPush)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("timed out after %v", e.Timeout)
	case ctx.Err() != nil:
		return set, ctx.Err()
	}
	failure := "the command %q failed: %w%s"
	if err == nil {
		set, err = e.Format.parse(stdout.buf.Bytes())
		failure = "the output of the command %q is invalid: %w%s"
	}
	if err != nil {
		return nil, fmt.Errorf(failure, e.Command, err, e.redactStderr(stdout.buf.Bytes(), stderr))
	}
	return set, nil
}

// minLeak is the length in bytes from which a string in both standard error and
// standard output counts as a leaked part of a secret.
const minLeak = 5

// redactStderr returns the lines of standard error for an error message. It replaces
// each line that contains a part of standard output, because this part can be a
// secret. It also looks for the parsed values, because a value in standard output can
// contain escapes that standard error does not contain.
func (e Exec) redactStderr(stdout []byte, stderr *cappedBuffer) string {
	text := stderr.buf.String()
	if stderr.overflowed {
		// The limit can have cut a value in two, and a short part of a value would not be
		// recognized. Drop the last, incomplete line.
		text = text[:strings.LastIndexByte(text, '\n')+1]
	}
	output := string(stdout)
	if set, err := e.Format.parse(stdout); err == nil {
		for _, value := range set {
			if !value.Binary {
				output += "\n" + string(value.Bytes)
			}
			for _, field := range value.Fields {
				output += "\n" + string(field)
			}
		}
	}
	shortWords := map[string]bool{}
	for _, word := range splitWords(output) {
		if len(word) < minLeak {
			shortWords[word] = true
		}
	}
	var shown []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); leaksOutput(line, output, shortWords) {
			line = "(a line is not shown because it contains a part of standard output)"
		}
		if line != "" {
			shown = append(shown, line)
		}
	}
	if shown == nil {
		return ""
	}
	return "; standard error: " + strings.Join(shown, "; ")
}

// leaksOutput reports whether a line contains a string of minLeak bytes that is also
// in the output, or one of the short words of the output.
func leaksOutput(line, output string, shortWords map[string]bool) bool {
	for i := 0; i+minLeak <= len(line); i++ {
		if strings.Contains(output, line[i:i+minLeak]) {
			return true
		}
	}
	return slices.ContainsFunc(splitWords(line), func(word string) bool { return shortWords[word] })
}

// splitWords splits text at white space and at the characters that a format puts
// around values.
func splitWords(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n\"'`={}[],;.:\\", r) })
}

// A cappedBuffer keeps the first max bytes and discards the rest. It calls
// onOverflow when it discards.
type cappedBuffer struct {
	buf        bytes.Buffer
	max        int
	overflowed bool
	onOverflow func() // may be nil
}

func (c *cappedBuffer) Write(p []byte) (int, error) {
	room := c.max - c.buf.Len()
	if len(p) > room {
		if c.overflowed = true; c.onOverflow != nil {
			c.onOverflow()
		}
		c.buf.Write(p[:room])
		return len(p), nil
	}
	return c.buf.Write(p)
}

// WatchDirs returns the directories that Dir.WatchDirs returns for each of the
// WatchPaths.
func (e Exec) WatchDirs() (dirs []string) {
	for _, path := range e.WatchPaths {
		dirs = append(dirs, Dir{Path: path}.WatchDirs()...)
	}
	return dirs
}

// IsAffectedBy reports whether an event at path can mean a change of one of the
// WatchPaths. It returns false for other files in the same directory.
func (e Exec) IsAffectedBy(path string) bool {
	for _, watched := range e.WatchPaths {
		if (Dir{Path: watched}).IsAffectedBy(path) {
			return true
		}
	}
	return false
}
