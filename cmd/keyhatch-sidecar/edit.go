package main

import (
	"fmt"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"io"
	"os"
	"strings"
)

func setCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "set NAME|BUNDLE/FIELD",
		Short: "Write a secret or a field of a bundle into the store",
		Long: `set reads the value from standard input. If standard input is a terminal, set asks for
the value and hides your input. The value cannot be an argument of the command, because
other users can see the arguments of a process.

set replaces the file of the secret in one step. The new file has mode 0600. If the
directory of the store does not exist, set creates the directory.`,
		Example: `  keyhatch-sidecar set NPM_TOKEN --store dir:$HOME/secrets
  gh auth token | keyhatch-sidecar set GH_TOKEN --store dir:$HOME/secrets
  keyhatch-sidecar set aws/aws_access_key_id --store dir:$HOME/secrets`,
		Args: cobra.ExactArgs(1),
	}
	getDir := addDirFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		dir, err := getDir()
		if err != nil {
			return err
		}
		if err := checkSecretName(args[0]); err != nil {
			return err
		}
		value, err := readValue(args[0])
		if err != nil {
			return fmt.Errorf("cannot read the value: %w", err)
		}
		defer clear(value)
		if len(value) > schema.MaxPush {
			return fmt.Errorf("the value is too large: it has more than %d bytes, the maximum size of a push", schema.MaxPush)
		}
		if _, err := dir.Create(); err != nil {
			return err
		}
		return dir.Set(args[0], value)
	}
	return c
}

// checkSecretName returns a usage error if the name of a secret is invalid. The error
// does not quote the name, because the user may have typed the value of a secret by
// mistake.
func checkSecretName(name string) error {
	parts := strings.Split(name, "/")
	for _, part := range parts {
		if len(parts) > 2 || !schema.ValidSecretName(part) {
			return cli.UsageErrorf("invalid name: use NAME or BUNDLE/FIELD; each part must match %s", schema.SecretNamePattern)
		}
	}
	return nil
}

func readValue(name string) ([]byte, error) {
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		return io.ReadAll(io.LimitReader(os.Stdin, schema.MaxPush+1))
	}
	fmt.Fprintf(os.Stderr, "value of %s: ", name)
	value, err := term.ReadPassword(in)
	fmt.Fprintln(os.Stderr)
	return value, err
}

func removeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rm NAME|BUNDLE/FIELD",
		Short: "Remove a secret, a bundle, or a field of a bundle from the store",
		Example: `  keyhatch-sidecar rm NPM_TOKEN --store dir:$HOME/secrets
  keyhatch-sidecar rm aws/aws_access_key_id --store dir:$HOME/secrets`,
		Args: cobra.ExactArgs(1),
	}
	getDir := addDirFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		dir, err := getDir()
		if err != nil {
			return err
		}
		if err := checkSecretName(args[0]); err != nil {
			return err
		}
		return dir.Remove(args[0])
	}
	return c
}

func listCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the names of the secrets in the store",
		Long:    `list prints the name of each secret. It prints each field of a bundle as BUNDLE/FIELD.`,
		Example: `  keyhatch-sidecar list --store dir:$HOME/secrets`,
	}
	getDir := addDirFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the names as a JSON array")
	c.RunE = func(c *cobra.Command, _ []string) error {
		dir, err := getDir()
		if err != nil {
			return err
		}
		names, err := dir.List()
		if err != nil {
			return err
		}
		if asJSON {
			return cli.PrintJSON(c.OutOrStdout(), names)
		}
		for _, name := range names {
			fmt.Fprintln(c.OutOrStdout(), name)
		}
		return nil
	}
	return c
}
