package main

import (
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/spf13/cobra"
)

// doctorCommand does not use a client.Project: it looks at the path of one.
func doctorCommand(socket *string) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what keeps this container from its secrets, and what to do about it",
		Long: `doctor looks at everything between this container and its secrets, names each
problem and says what to do about it. It fetches no secret. The exit code is 0
only where all is well. On the host, keyhatchctl doctor looks at the other end.`,
		Example: `  keyhatch doctor
  keyhatch doctor --json | jq -r '.findings[].problem // empty'`,
		RunE: func(c *cobra.Command, _ []string) error {
			var findings []cli.Finding
			for _, f := range devcontainer.Diagnose(c.Context(), *socket, devcontainer.DetectPlatform()) {
				findings = append(findings, cli.Finding(f))
			}
			return cli.PrintFindings(c.OutOrStdout(), findings, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	return c
}
