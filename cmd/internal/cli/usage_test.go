package cli

import (
	"testing"

	"github.com/spf13/cobra"
)

func TestUsageErrorsNameArgumentOrFlag(t *testing.T) {
	for _, c := range []struct {
		use  string
		args cobra.PositionalArgs
		line []string
		want string
	}{
		{"register DIR", cobra.ExactArgs(1), nil, "missing argument: DIR"},
		{"register DIR", cobra.ExactArgs(1), []string{"a", "b"}, `unexpected argument "b"`},
		{"reload NAME|DIR", cobra.ExactArgs(1), nil, "missing argument: NAME|DIR"},
		{"run [--only A,B] [--watch] -- COMMAND [ARG...]", cobra.MinimumNArgs(1), nil, "missing argument: COMMAND"},
		{"set --store STORE NAME", cobra.ExactArgs(1), nil, "missing argument: NAME"},
		{"health --store STORE...", nil, []string{"a"}, `unexpected argument "a"`},
		{"list", nil, []string{"a"}, `unexpected argument "a"`},
		{"list", nil, []string{"--wait", "5"}, `--wait needs a duration such as 15s, not "5"`},
		{"list", nil, []string{"--wait"}, "--wait needs a value"},
		{"list", nil, []string{"--uid", "me"}, `--uid needs a whole number, not "me"`},
		{"list", nil, []string{"--rate", "fast"}, `--rate needs a number, not "fast"`},
		{"list", nil, []string{"--json=maybe"}, `--json needs true or false, not "maybe"`},
		{"list", nil, []string{"--none"}, "unknown flag: --none"},
		{"list", nil, []string{"-x"}, "unknown flag: -x"},
	} {
		command := &cobra.Command{Use: c.use, Args: c.args, SilenceErrors: true, SilenceUsage: true, RunE: func(*cobra.Command, []string) error { return nil }}
		command.Flags().Duration("wait", 0, "")
		command.Flags().UintSlice("uid", nil, "")
		command.Flags().Float64("rate", 0, "")
		command.Flags().Bool("json", false, "")
		wrapUsageErrors(command)
		command.SetArgs(append([]string{}, c.line...))
		if err := command.Execute(); err == nil || err.Error() != c.want {
			t.Errorf("%s %q: %v, want %s", c.use, c.line, err, c.want)
		}
	}
}

// TestUnknownCommandIsNamed runs an unknown subcommand, also with flags. The error must name the
// subcommand, and not a flag that follows it.
func TestUnknownCommandIsNamed(t *testing.T) {
	for _, c := range []struct {
		line []string
		want string
	}{
		{[]string{"gett"}, `unknown command "gett": did you mean get?`},
		{[]string{"gett", "NAME", "--wait", "15s"}, `unknown command "gett": did you mean get?`},
		{[]string{"gett", "-w"}, `unknown command "gett": did you mean get?`},
		{[]string{"nonsense", "--wait"}, `unknown command "nonsense"`},
		{[]string{"--nonsense", "get"}, "unknown flag: --nonsense"},
	} {
		root := &cobra.Command{Use: "keyhatch", SilenceErrors: true, SilenceUsage: true}
		root.AddCommand(&cobra.Command{Use: "get NAME", RunE: func(*cobra.Command, []string) error { return nil }})
		wrapUsageErrors(root)
		root.SetArgs(c.line)
		if err := root.Execute(); err == nil || err.Error() != c.want {
			t.Errorf("%q: %v, want %s", c.line, err, c.want)
		}
	}
}
