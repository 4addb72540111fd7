package main

import (
	"fmt"
	"strings"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

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
