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
	// Paths are files and directories whose change means that the command is to
	// be run again, beside each poll.
	Paths   []string
	Timeout time.Duration
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
	stdout, stderr := &capped{max: schema.MaxPush, over: cancel}, &capped{max: maxStderr}
	defer func() { clear(stdout.b.Bytes()); clear(stderr.b.Bytes()) }()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	var set Set
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		// What holds the pipe is of the group still, so the group's number cannot
		// have been given to another.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		err = errors.New("it left something in the background that holds its output open: send that elsewhere, or wait for it")
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
		return nil, fmt.Errorf("the command %q: %w%s", e.Command, err, e.safeStderr(stdout.b.Bytes(), stderr))
	}
	return set, nil
}

// telling is how many bytes in a row must be equal for a line of standard error
// to be taken for a quotation of standard output.
const telling = 5

// safeStderr returns what may be shown of standard error: lines that quote
// nothing of standard output, neither as it was printed nor as it is meant.
func (e Exec) safeStderr(stdout []byte, stderr *capped) string {
	text := stderr.b.String()
	if stderr.full {
		// The cap may have cut a value in two, and a half is not known again.
		text = text[:strings.LastIndexByte(text, '\n')+1]
	}
	printed := string(stdout)
	if set, err := e.Format.parse(stdout); err == nil {
		for _, value := range set {
			if !value.Binary {
				printed += "\n" + string(value.Bytes)
			}
			for _, field := range value.Fields {
				printed += "\n" + string(field)
			}
		}
	}
	short := map[string]bool{}
	for _, word := range splitWords(printed) {
		if len(word) < telling {
			short[word] = true
		}
	}
	var shown []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); quotes(line, printed, short) {
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

// quotes reports whether a line holds telling bytes of what was printed, or one
// of its short words.
func quotes(line, printed string, short map[string]bool) bool {
	for i := 0; i+telling <= len(line); i++ {
		if strings.Contains(printed, line[i:i+telling]) {
			return true
		}
	}
	return slices.ContainsFunc(splitWords(line), func(word string) bool { return short[word] })
}

// splitWords splits at everything that a format puts around values.
func splitWords(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n\"'`={}[],;.:\\", r) })
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
