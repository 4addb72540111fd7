package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// SecretSource is the key of an annotation of a command. Users can type the value of a secret as an
// argument of such a command by mistake, so a usage error contains the text of the annotation instead of
// a wrong argument.
const SecretSource = "secret source"

// wrapUsageErrors replaces cobra's errors about flags and arguments with usage errors
// that have our own texts, in the command c and in all its subcommands.
func wrapUsageErrors(c *cobra.Command) {
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		// If the subcommand is unknown, its flags are unknown, too. Report the subcommand,
		// because the flags may be valid for the subcommand that the user meant.
		if args := c.Flags().Args(); c.HasSubCommands() && len(args) > 0 {
			return unknownCommandError(c, args[0])
		}
		return flagError(c, err)
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
		// This command does nothing without a subcommand, so it shows its help.
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	for _, sub := range c.Commands() {
		wrapUsageErrors(sub)
	}
}

// argumentError returns the usage error for args. err is the error with which the command refused
// these arguments.
func argumentError(c *cobra.Command, args []string, err error) error {
	required := requiredArguments(c.Use)
	_, isOwn := errors.AsType[*Error](err)
	switch {
	case isOwn:
		return err
	case c.HasSubCommands() && len(args) > 0:
		return unknownCommandError(c, args[0])
	case len(args) < len(required):
		return UsageErrorf("missing argument: %s", required[len(args)])
	case len(args) > len(required) && c.Annotations[SecretSource] != "":
		return UsageErrorf("unexpected argument: %s", c.Annotations[SecretSource])
	case len(args) > len(required):
		return UsageErrorf("unexpected argument %q", args[len(required)])
	}
	return UsageErrorf("%w", err)
}

// unknownCommandError returns the usage error for an unknown subcommand of c.
func unknownCommandError(c *cobra.Command, name string) error {
	c.SuggestionsMinimumDistance = 2 // the value that cobra uses for its own error about an unknown command
	if similar := c.SuggestionsFor(name); len(similar) > 0 {
		return UsageErrorf("unknown command %q: did you mean %s?", name, strings.Join(similar, " or "))
	}
	return UsageErrorf("unknown command %q", name)
}

var optionalPart = regexp.MustCompile(`\[[^\]]*\]`)

// requiredArguments returns the names of the required arguments in a command's Use line. It
// ignores flags and the values of flags. For example, the Use line "up DIR [-- ARG...]" has only
// the required argument DIR.
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

// flagError returns the usage error for an error that pflag returned for a flag of c.
func flagError(c *cobra.Command, err error) error {
	source := c.Annotations[SecretSource]
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		if expected := ExpectedValue(e.GetFlag()); expected != "" && source != "" {
			return UsageErrorf("--%s needs %s", e.GetFlag().Name, expected)
		} else if expected != "" {
			return UsageErrorf("--%s needs %s, not %q", e.GetFlag().Name, expected, e.GetValue())
		}
		return UsageErrorf("--%s: %w", e.GetFlag().Name, e.Unwrap())
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return UsageErrorf("--%s needs a value", e.GetFlag().Name)
	}
	if source != "" {
		return UsageErrorf("unknown flag: %s", source)
	}
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok && e.GetSpecifiedShortnames() != "" {
		return UsageErrorf("unknown flag: -%s", e.GetSpecifiedName())
	}
	return UsageErrorf("%w", err)
}

// ExpectedValue returns a description of the values that a flag accepts, for an error message. An
// example is "a duration such as 15s". If ExpectedValue does not know the type of the flag, it
// returns "".
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

// UsageErrorf returns an error for a wrong command line. The error is an *Error with the exit
// code ExitUsage.
func UsageErrorf(format string, args ...any) error {
	return &Error{Err: fmt.Errorf(format, args...), ExitCode: ExitUsage}
}
