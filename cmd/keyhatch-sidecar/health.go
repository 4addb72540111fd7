package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func healthCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "health --store STORE...",
		Short: "Check that the broker has the secrets of the store",
		Long: `health compares the names of the secrets in the store with the names of the secrets in the
broker, but not the values. If the store is a command, health runs the command.

health prints a warning if other users can read the store or members of its group can
change the store, and fails if every user can change the store. health does not check
the permissions of a store on a read-only mount. health also prints a
warning if a set or rm that was killed has left a temporary file in a dir:PATH store. A
running sidecar removes the temporary file of a killed set or rm if the sidecar has
permission.

The exit code is 0 only if the names are the same, health and the sidecar can use every
file in the store, a sidecar is running and not stopped, and no second sidecar tries to
push to the broker. health prints all problems that it finds. If a file is open for
writing, health waits for at most two seconds. You can use health in the HEALTHCHECK
instruction of a container image.`,
		Example: `  HEALTHCHECK CMD keyhatch-sidecar health --store dir:/secrets`,
	}
	storeFlags, getStore := addStoreFlags(c)
	getSocket := addSocketFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		source, err := getStore()
		if err != nil {
			return err
		}
		socket, tokenFile, err := getSocket()
		if err != nil {
			return err
		}
		for _, path := range store.Leftovers(source) {
			fmt.Fprintf(c.ErrOrStderr(), "warning: %s: %s\nhint: %s\n", sidecar.LeftoverWarning, cli.Printable(path), cli.Printable(sidecar.LeftoverHint(path)))
		}
		for _, path := range store.Backups(source) {
			fmt.Fprintf(c.ErrOrStderr(), "warning: %s: %s\nhint: %s\n", sidecar.BackupWarning, cli.Printable(path), sidecar.BackupHint)
		}
		count, problems := sidecar.CheckHealth(c.Context(), newChildReader(storeFlags, source).Read, socket, tokenFile)
		for i, err := range problems {
			problems[i] = &cli.Error{Err: err, Hint: healthHint(c, err, storeFlags, socket, tokenFile)}
		}
		for _, path := range storePaths(source) {
			access, warning, hint := accessWarning(path)
			switch {
			case access == everyoneCanChange:
				problems = append(problems, &cli.Error{Err: errors.New(warning), Hint: hint})
			case access != noProblem:
				fmt.Fprintf(c.ErrOrStderr(), "warning: %s\nhint: %s\n", warning, hint)
			}
		}
		for i, problem := range problems {
			if i == len(problems)-1 {
				return problem
			}
			cli.PrintError(c, problem)
		}
		fmt.Fprintf(c.OutOrStdout(), "the broker has all secrets of the store (%s)\n", cli.Plural(count, "secret"))
		return nil
	}
	return c
}

// healthHint returns the hint for a problem that sidecar.CheckHealth has returned, or "".
func healthHint(c *cobra.Command, err error, storeFlags *pflag.FlagSet, socket, tokenFile string) string {
	refusal, _ := errors.AsType[*client.Error](err)
	_, isTokenFileError := errors.AsType[*client.TokenFileError](err)
	untrusted, _ := errors.AsType[*client.UntrustedListenerError](err)
	switch known, ok := errors.AsType[*sidecar.HealthError](err); {
	case ok:
		return known.Hint
	case errors.Is(err, sidecar.ErrNoSidecar):
		return "start the sidecar: " + runCommandLine(storeFlags, socket, tokenFile)
	case isTokenFileError:
		return cli.TokenFileHint(err, tokenFile, socket)
	case untrusted != nil:
		return cli.UntrustedListenerHint(untrusted.UID)
	case refusal != nil && refusal.Code == schema.CodeUnauthorized:
		return cli.UnauthorizedHint(refusal.TokenFile, tokenFile, socket)
	case errors.Is(err, client.ErrUnreachable) && errors.Is(err, fs.ErrPermission):
		return cli.PermissionHint(socket)
	case errors.Is(err, client.ErrUnreachable):
		return cli.StartBrokerHint(socket, c.Flags().Changed("socket"))
	}
	return ""
}

// runCommandLine returns the command line that starts a sidecar with the given flags. If a store is the
// output of a command, runCommandLine returns a text without the command, because the command can contain
// a secret.
func runCommandLine(storeFlags *pflag.FlagSet, socket, tokenFile string) string {
	stores, _ := storeFlags.GetStringArray("store")
	if slices.ContainsFunc(stores, func(arg string) bool { return strings.HasPrefix(arg, "exec:") }) {
		return "repeat this command with run instead of health"
	}
	words := append([]string{"keyhatch-sidecar", "run"}, flagArgs(storeFlags, func(f *pflag.Flag) bool { return f.Changed })...)
	words = append(words, "--socket="+socket)
	if tokenFile != "" {
		words = append(words, "--admin-token-file="+tokenFile)
	}
	return cli.QuoteWords(words)
}
