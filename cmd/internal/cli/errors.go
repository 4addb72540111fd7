package cli

import "fmt"

// The exit codes that all commands share.
const (
	ExitOther = 1
	ExitUsage = 2
)

// A Failure is an error with a way out and an exit code of its own.
type Failure struct {
	Err  error
	Hint string // "" where there is none
	Code int    // 0 means ExitOther
}

func (f *Failure) Error() string { return f.Err.Error() }

func (f *Failure) Unwrap() error { return f.Err }

// An Exit is the exit code of a command that was run: it is passed on and nothing
// is said.
type Exit int

func (e Exit) Error() string { return fmt.Sprintf("the command exited with %d", int(e)) }

// Usage marks an error as a wrong use of the command line.
func Usage(format string, args ...any) error {
	return &Failure{Err: fmt.Errorf(format, args...), Code: ExitUsage}
}
