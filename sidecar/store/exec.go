package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// maxStderr is the maximum number of bytes of a command's standard error that Read stores
// for its error message.
const maxStderr = 2 << 10

// An Exec is a store that reads the standard output of a command.
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
// returns an error and no Set if the exit code is not 0, if the output is too large, or if
// the command exceeds the timeout.
func (e Exec) Read(ctx context.Context, _ *Reading) (*Reading, error) {
	for deadline := time.Now().Add(maxUnstablePeriod); e.isBeingWritten() && time.Now().Before(deadline); {
		if err := sleep(ctx, stablePeriod/2); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", e.Command)
	// Run the command in a new process group, so that the timeout also kills the
	// processes that the command started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	stdout, stderr := &cappedBuffer{max: schema.MaxPush, onOverflow: cancel}, &cappedBuffer{max: maxStderr}
	defer func() { clear(stdout.buf.Bytes()); clear(stderr.buf.Bytes()) }()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	if cmd.Process != nil {
		// Kill the remaining background processes. Otherwise each poll would start more of
		// them. While a process belongs to the command's process group, the kernel does not
		// reuse the group's ID. If the group is empty, the ID is free, but the kernel gives
		// out all other IDs before it uses the same ID again.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	var set Set
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		err = errors.New("a background process still has the command's output open: redirect the output of the background process, or let the command wait for the background process")
	case stdout.overflowed:
		err = fmt.Errorf("its output has more than %d bytes, the maximum size of a push", schema.MaxPush)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("timed out after %v", e.Timeout)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	failure := "the command %q failed: %w%s"
	if err == nil {
		set, err = e.Format.parse(stdout.buf.Bytes())
		failure = "the output of the command %q is invalid: %w%s"
	}
	if err != nil {
		return nil, fmt.Errorf(failure, e.Command, err, e.redactStderr(stdout.buf.Bytes(), stderr))
	}
	return &Reading{Set: set}, nil
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

// minLeak is the minimum length in bytes of a string that counts as a leaked part of a
// secret. Such a string is in both the standard error and the standard output of a
// command.
const minLeak = 5

// redactStderr returns the lines of a command's standard error for an error message. If a
// line contains a part of the command's standard output, redactStderr replaces the line,
// because this part can be a secret.
//
// redactStderr also searches each line for the parsed values, because standard error can
// contain a value without the escapes that the value has in standard output.
func (e Exec) redactStderr(stdout []byte, stderr *cappedBuffer) string {
	text := stderr.buf.String()
	if stderr.overflowed {
		// Remove the incomplete last line. The limit maxStderr may have cut off a part of
		// a secret value in this line. leaksOutput would not recognize the short rest of
		// the value.
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
			line = "(this line is not shown, because it contains a part of the standard output)"
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

// leaksOutput reports whether line contains a part of output. Such a part is a string of
// minLeak bytes that output also contains, or one of the words in shortWords.
func leaksOutput(line, output string, shortWords map[string]bool) bool {
	for i := 0; i+minLeak <= len(line); i++ {
		if strings.Contains(output, line[i:i+minLeak]) {
			return true
		}
	}
	return slices.ContainsFunc(splitWords(line), func(word string) bool { return shortWords[word] })
}

// splitWords splits text at white space and at the characters that can surround a value
// in dotenv, JSON, and YAML.
func splitWords(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n\"'`={}[],;.:\\", r) })
}

// A cappedBuffer stores the first max bytes that are written to it, and discards all
// other bytes. It calls onOverflow when it discards bytes.
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

// WatchDirs returns the result of Dir.WatchDirs for each path in WatchPaths.
func (e Exec) WatchDirs() (dirs []string) {
	for _, path := range e.WatchPaths {
		dirs = append(dirs, Dir{Path: path}.WatchDirs()...)
	}
	return dirs
}

// IsAffectedBy reports whether a file event at path can mean that a file or directory in
// WatchPaths changed. It returns false for other files in the same directory.
func (e Exec) IsAffectedBy(path string) bool {
	for _, watched := range e.WatchPaths {
		if (Dir{Path: watched}).IsAffectedBy(path) {
			return true
		}
	}
	return false
}
