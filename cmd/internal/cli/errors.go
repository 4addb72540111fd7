package cli

import "fmt"

// The exit codes that all commands share.
const (
	ExitFailure = 1
	ExitUsage   = 2
)

// A Error is an error with a way out and an exit code of its own.
type Error struct {
	Err      error
	Hint     string // "" where there is none
	ExitCode int    // 0 means ExitOther
}

func (f *Error) Error() string { return f.Err.Error() }

func (f *Error) Unwrap() error { return f.Err }

// An ExitStatus is the exit code of a command that was run: it is passed on and nothing
// is said.
type ExitStatus int

func (e ExitStatus) Error() string { return fmt.Sprintf("the command exited with %d", int(e)) }

// UsageErrorf marks an error as a wrong use of the command line.
func UsageErrorf(format string, args ...any) error {
	return &Error{Err: fmt.Errorf(format, args...), ExitCode: ExitUsage}
}
