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
		Short: "List what this project may fetch, whether it is there or not",
		Example: `  keyhatch list
  keyhatch list --json | jq -r .project`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkProtocol(c.Context(), newProject(), 0); err != nil {
				return withHint(err)
			}
			info, err := newProject().Info(c.Context())
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
