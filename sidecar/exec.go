package sidecar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
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
	// Paths are files and directories whose change means that the command is to
	// be run again, beside each poll.
	Paths   []string
	Timeout time.Duration
}

// Read runs the command. An exit code that is not 0, too much output, and a
// command that goes on past the timeout are errors, whatever it printed.
func (e Exec) Read(ctx context.Context) (schema.PushRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", e.Command)
	// A group of its own, so that the timeout ends what it started too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	stdout, stderr := &capped{max: schema.MaxPush, over: cancel}, &capped{max: maxStderr}
	defer func() { clear(stdout.b.Bytes()); clear(stderr.b.Bytes()) }()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	var set schema.PushRequest
	switch {
	case stdout.full:
		err = fmt.Errorf("it printed over %d bytes, more than a push takes", schema.MaxPush)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("it was not done within %v", e.Timeout)
	case ctx.Err() != nil:
		return set, ctx.Err()
	case err != nil:
		err = fmt.Errorf("it ended with %w", err)
	default:
		set, err = e.Format.parse(stdout.b.Bytes())
	}
	if err != nil {
		return schema.PushRequest{}, fmt.Errorf("the command %q: %w%s", e.Command, err, safeStderr(stdout.b.Bytes(), stderr.b.Bytes()))
	}
	return set, nil
}

// safeStderr returns what may be shown of standard error: lines in which
// nothing of standard output stands, word by word.
func safeStderr(stdout, stderr []byte) string {
	words := map[string]bool{}
	for _, word := range splitWords(stdout) {
		if len(word) >= 4 {
			words[word] = true
		}
	}
	var shown []string
	for line := range strings.Lines(string(stderr)) {
		line = strings.TrimSpace(line)
		for word := range words {
			if strings.Contains(line, word) {
				line = "(a line that holds a part of standard output is not shown)"
				break
			}
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

// splitWords splits at everything that a format puts around values.
func splitWords(text []byte) []string {
	return strings.FieldsFunc(string(text), func(r rune) bool { return strings.ContainsRune(" \t\r\n\"'={}[],:\\", r) })
}

// A capped buffer keeps the first max bytes, swallows the rest, and tells.
type capped struct {
	b    bytes.Buffer
	max  int
	full bool
	over func() // may be nil
}

func (c *capped) Write(p []byte) (int, error) {
	room := c.max - c.b.Len()
	if len(p) > room {
		if c.full = true; c.over != nil {
			c.over()
		}
		c.b.Write(p[:room])
		return len(p), nil
	}
	return c.b.Write(p)
}

// Watch returns the directories of Paths and what is directly in them.
func (e Exec) Watch() (dirs []string) {
	for _, path := range e.Paths {
		dirs = append(dirs, Dir{Path: path}.Watch()...)
	}
	return dirs
}

// Concerns leaves out the neighbours of Paths.
func (e Exec) Concerns(path string) bool {
	for _, watched := range e.Paths {
		if (Dir{Path: watched}).Concerns(path) {
			return true
		}
	}
	return false
}
