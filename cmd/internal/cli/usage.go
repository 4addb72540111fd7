package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// wrapUsageErrors replaces cobra's errors about flags and arguments with usage errors
// that have our own texts. It changes a command and all its subcommands.
func wrapUsageErrors(c *cobra.Command) {
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		// A flag of an unknown command is unknown, too. The error must be about the command.
		if args := c.Flags().Args(); c.HasSubCommands() && len(args) > 0 {
			return unknownCommandError(c, args[0])
		}
		return flagError(err)
	})
	validateArgs := c.Args
	if validateArgs == nil {
		validateArgs = cobra.NoArgs
	}
	c.Args = func(c *cobra.Command, args []string) error {
		if err := validateArgs(c, args); err != nil {
			return argumentError(c, args, err)
		}
		return nil
	}
	if c.Run == nil && c.RunE == nil {
		// A command that only contains subcommands shows its help.
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	for _, sub := range c.Commands() {
		wrapUsageErrors(sub)
	}
}

// argumentError returns the usage error for arguments that the command refused with
// err.
func argumentError(c *cobra.Command, args []string, err error) error {
	required := requiredArguments(c.Use)
	switch {
	case c.HasSubCommands() && len(args) > 0:
		return unknownCommandError(c, args[0])
	case len(args) < len(required):
		return UsageErrorf("missing argument: %s", required[len(args)])
	case len(args) > len(required):
		return UsageErrorf("unexpected argument %q", args[len(required)])
	}
	return UsageErrorf("%w", err)
}

// unknownCommandError returns the usage error for an unknown subcommand of c.
func unknownCommandError(c *cobra.Command, name string) error {
	c.SuggestionsMinimumDistance = 2 // the default of cobra's own error
	if similar := c.SuggestionsFor(name); len(similar) > 0 {
		return UsageErrorf("unknown command %q: did you mean %s?", name, strings.Join(similar, " or "))
	}
	return UsageErrorf("unknown command %q", name)
}

var optionalPart = regexp.MustCompile(`\[[^\]]*\]`)

// requiredArguments returns the names of the required arguments in a command's Use
// line, without flags and their values. For example, the Use line "up DIR [-- ARG...]"
// has only the required argument DIR.
func requiredArguments(use string) (names []string) {
	words := strings.Fields(optionalPart.ReplaceAllString(use, ""))
	for i := 1; i < len(words); i++ {
		switch {
		case words[i] == "--":
		case strings.HasPrefix(words[i], "--"):
			i++ // skip the flag's value
		default:
			names = append(names, words[i])
		}
	}
	return names
}

// flagError returns the usage error for an error that pflag returned.
func flagError(err error) error {
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		if expected := ExpectedValue(e.GetFlag()); expected != "" {
			return UsageErrorf("--%s needs %s, not %q", e.GetFlag().Name, expected, e.GetValue())
		}
		return UsageErrorf("--%s: %w", e.GetFlag().Name, e.Unwrap())
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return UsageErrorf("--%s needs a value", e.GetFlag().Name)
	}
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok && e.GetSpecifiedShortnames() != "" {
		return UsageErrorf("unknown flag: -%s", e.GetSpecifiedName())
	}
	return UsageErrorf("%w", err)
}

// ExpectedValue returns a description of the values that a flag accepts, for an error
// message. An example is "a duration such as 15s". For an unknown type of flag,
// ExpectedValue returns "".
func ExpectedValue(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "duration":
		return "a duration such as 15s"
	case "bool":
		return "true or false"
	case "float64":
		return "a number"
	case "path":
		return "a path"
	case "int", "uint", "uint32", "uint64", "uintSlice":
		return "a whole number"
	}
	return ""
}

// UsageErrorf returns an error for a wrong command line. The exit code is ExitUsage.
func UsageErrorf(format string, args ...any) error {
	return &Error{Err: fmt.Errorf(format, args...), ExitCode: ExitUsage}
}
