// Package cli is what keyhatch's four commands share on the terminal: the
// version, how an error is said, and which exit code it gets.
//
// Wording: lower case, no final period, "keyhatch: what failed: why", and a
// line "hint: ..." where there is something to do about it.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Version is set when a release is linked.
var Version = "0.1.0-dev"

// Run runs a command tree to its end and returns the exit code. The context
// ends with SIGINT or SIGTERM.
func Run(root *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root.Version = Version
	root.SilenceErrors, root.SilenceUsage = true, true
	wrapUsageErrors(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[ExitStatus](err); ok {
		return int(exit)
	}
	return PrintError(root.Name(), err)
}

// PrintError says an error on standard error and returns its exit code.
func PrintError(command string, err error) int {
	failure, ok := errors.AsType[*Error](err)
	if !ok {
		failure = &Error{Err: err}
	}
	fmt.Fprintf(os.Stderr, "%s: %s\n", command, strings.TrimSpace(err.Error()))
	hint := failure.Hint
	if hint == "" && failure.ExitCode == ExitUsage {
		hint = "see " + command + " --help"
	}
	if hint != "" {
		fmt.Fprintf(os.Stderr, "hint: %s\n", hint)
	}
	if failure.ExitCode == 0 {
		return ExitFailure
	}
	return failure.ExitCode
}

// wrapUsageErrors makes cobra's errors about flags and arguments usage errors,
// for a command and all below it.
func wrapUsageErrors(c *cobra.Command) {
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return UsageErrorf("%w", err) })
	validateArgs := c.Args
	if validateArgs == nil {
		validateArgs = cobra.NoArgs
	}
	c.Args = func(c *cobra.Command, args []string) error {
		if err := validateArgs(c, args); err != nil {
			return UsageErrorf("%w", err)
		}
		return nil
	}
	if c.Run == nil && c.RunE == nil {
		// A command that only groups others: by itself it shows its help.
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	for _, sub := range c.Commands() {
		wrapUsageErrors(sub)
	}
}
