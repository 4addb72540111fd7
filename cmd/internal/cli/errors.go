package cli

import "fmt"

// These are the exit codes that all commands share. ExitUsage is for a wrong command line, and
// ExitFailure is for any error without its own exit code.
const (
	ExitFailure = 1
	ExitUsage   = 2
)

// An Error is an error with a hint or an exit code.
type Error struct {
	Err      error
	Hint     string // "" if there is no hint
	ExitCode int    // 0 means ExitFailure
}

func (f *Error) Error() string { return f.Err.Error() }

func (f *Error) Unwrap() error { return f.Err }

// An ExitStatus is an error that contains only an exit code, for example the exit code of a child
// process. Run returns this code and prints no error.
type ExitStatus int

func (e ExitStatus) Error() string { return fmt.Sprintf("the command exited with code %d", int(e)) }
