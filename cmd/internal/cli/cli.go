// Package cli contains the code that keyhatch's four commands share: the version, usage errors,
// error output and hints, exit codes, the output of doctor commands, and logs.
//
// The format of an error is "COMMAND: what failed: why", in lower case and without a final
// period. If a hint is known, the next line is "hint: ...". A hint describes how the user can
// solve the problem.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// Version is the version of the four commands. In a release build, the linker sets it.
var Version = "0.1.0-dev"

// Run executes a command and returns its exit code. SIGINT, SIGTERM, and the given signals cancel
// the command's context, and end a read from the command's standard input (InOrStdin). If the
// command fails because its context was canceled, Run prints no error and returns 128 plus the
// signal's number, as a shell does. The caller must pass the exit code to Exit.
//
// Run makes the process undumpable, because most commands process secrets. If a command executes
// another program, this program is dumpable.
func Run(root *cobra.Command, signals ...os.Signal) int {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return PrintError(root, fmt.Errorf("making the process undumpable: %w", err))
	}
	ctx, stop := cancelOnSignal(signals)
	defer stop()
	root.Version = Version
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(CancelableReader(ctx, os.Stdin))
	root.InitDefaultCompletionCmd()
	wrapUsageErrors(root)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[ExitStatus](err); ok {
		return int(exit)
	}
	if sig, ok := errors.AsType[signalError](context.Cause(ctx)); ok && errors.Is(err, context.Canceled) {
		return 128 + int(sig)
	}
	return PrintError(command, err)
}

// A signalError is the cause of a context that a signal canceled.
type signalError syscall.Signal

func (e signalError) Error() string { return "received signal: " + syscall.Signal(e).String() }

// cancelOnSignal returns a context that SIGINT, SIGTERM, and the given other signals cancel. If
// one of these signals canceled the context, context.Cause returns a signalError. stop cancels the
// context and ends the handling of the signals.
func cancelOnSignal(others []os.Signal) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	for _, sig := range others {
		if !signal.Ignored(sig) { // SIGQUIT must stay ignored if a shell started this process in the background
			signal.Notify(signals, sig)
		}
	}
	go func() { // the goroutine ends when the context is canceled
		select {
		case sig := <-signals:
			cancel(signalError(sig.(syscall.Signal)))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(signals); cancel(context.Canceled) }
}

// PrintError prints err and its hint to standard error, and returns the exit code for err. If a
// usage error has no hint, PrintError prints the command for help as the hint. printableLines
// escapes the error and the hint, because they can contain text of another program or user.
func PrintError(command *cobra.Command, err error) int {
	failure, ok := errors.AsType[*Error](err)
	if !ok {
		failure = &Error{Err: err}
	}
	fmt.Fprintf(os.Stderr, "%s: %s\n", command.Root().Name(), printableLines(err.Error()))
	hint := failure.Hint
	if hint == "" && failure.ExitCode == ExitUsage {
		hint = "run " + command.CommandPath() + " --help"
	}
	if hint != "" {
		fmt.Fprintf(os.Stderr, "hint: %s\n", printableLines(hint))
	}
	if failure.ExitCode == 0 {
		return ExitFailure
	}
	return failure.ExitCode
}
