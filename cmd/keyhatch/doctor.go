package main

import (
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/spf13/cobra"
)

// doctorCommand takes the socket's path and not a client.Project, because doctor also
// checks the file of the socket.
func doctorCommand(socket *string) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Diagnose problems with this container's access to secrets",
		Long: `Check the mounted socket, the broker, and whether the directory for secret files is
on a tmpfs. For each problem, doctor prints the cause and the fix. doctor fetches no
secret.

The exit code is 0 only if all checks pass. To check the host, run
keyhatchctl doctor on the host.`,
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
