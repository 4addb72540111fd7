package main

import (
	"fmt"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/spf13/cobra"
)

func listCommand(newProject func() *client.Project) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the secrets that this project may fetch",
		Long: `List the names on this project's allowlist. The list also contains names for which
the broker has no secret.`,
		Example: `  keyhatch list
  keyhatch list --json | jq -r .project`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkProtocol(c.Context(), newProject(), 0); err != nil {
				return withHint(err)
			}
			info, err := newProject().Info(c.Context(), 0)
			if err != nil {
				return withHint(err)
			}
			if asJSON {
				return cli.PrintJSON(c.OutOrStdout(), info)
			}
			for _, name := range info.Allowlist {
				fmt.Fprintln(c.OutOrStdout(), name)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the broker's answer as JSON")
	return c
}
