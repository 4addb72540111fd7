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

// maxStderr is how much of a command's standard error is shown, in bytes.
const maxStderr = 2 << 10

// An Exec is a store that is a command's standard output.
type Exec struct {
	Command string // for /bin/sh -c
	Format  Format
	// WatchPaths are files and directories whose change means that the command is to
	// be run again, beside each poll.
	WatchPaths []string
	Timeout    time.Duration
}

// Read runs the command. An exit code that is not 0, too much output, and a
// command that goes on past the timeout are errors, whatever it printed.
func (e Exec) Read(ctx context.Context) (Set, error) {
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", e.Command)
	// A group of its own, so that the timeout ends what it started too.
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
		// What holds the pipe is of the group still, so the group's number cannot
		// have been given to another.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		err = errors.New("it left something in the background that holds its output open: send that elsewhere, or wait for it")
	case stdout.overflowed:
		err = fmt.Errorf("it printed over %d bytes, more than a push takes", schema.MaxPush)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("it was not done within %v", e.Timeout)
	case ctx.Err() != nil:
		return set, ctx.Err()
	case err != nil:
		err = fmt.Errorf("it ended with %w", err)
	default:
		set, err = e.Format.parse(stdout.buf.Bytes())
	}
	if err != nil {
		return nil, fmt.Errorf("the command %q: %w%s", e.Command, err, e.redactStderr(stdout.buf.Bytes(), stderr))
	}
	return set, nil
}

// minLeak is how many bytes in a row must be equal for a line of standard error
// to be taken for a quotation of standard output.
const minLeak = 5

// redactStderr returns what may be shown of standard error: lines that quote
// nothing of standard output, neither as it was printed nor as it is meant.
func (e Exec) redactStderr(stdout []byte, stderr *cappedBuffer) string {
	text := stderr.buf.String()
	if stderr.overflowed {
		// The cap may have cut a value in two, and a half is not known again.
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
			line = "(a line that holds a part of standard output is not shown)"
		}
		if line != "" {
			shown = append(shown, line)
		}
	}
	if shown == nil {
		return ""
	}
	return "; it says: " + strings.Join(shown, "; ")
}

// leaksOutput reports whether a line holds minLeak bytes of what was printed, or one
// of its short words.
func leaksOutput(line, output string, shortWords map[string]bool) bool {
	for i := 0; i+minLeak <= len(line); i++ {
		if strings.Contains(output, line[i:i+minLeak]) {
			return true
		}
	}
	return slices.ContainsFunc(splitWords(line), func(word string) bool { return shortWords[word] })
}

// splitWords splits at everything that a format puts around values.
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

// WatchDirs returns the directories of WatchPaths and what is directly in them.
func (e Exec) WatchDirs() (dirs []string) {
	for _, path := range e.WatchPaths {
		dirs = append(dirs, Dir{Path: path}.WatchDirs()...)
	}
	return dirs
}

// IsAffectedBy leaves out the neighbours of WatchPaths.
func (e Exec) IsAffectedBy(path string) bool {
	for _, watched := range e.WatchPaths {
		if (Dir{Path: watched}).IsAffectedBy(path) {
			return true
		}
	}
	return false
}
