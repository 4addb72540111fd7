package main

import (
	"errors"
	"fmt"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/spf13/cobra"
)

func reloadCommand(o *globalOptions) *cobra.Command {
	var flags approvalFlags
	c := &cobra.Command{
		Use:   "reload NAME|DIR",
		Short: "Approve a project's changed manifest",
		Long: `reload reads the project's manifest, shows every change of its effects, and asks
for approval. reload approves exactly the manifest that it showed, even if somebody
changes the file before you answer. If the project is declared, the manifest in its
declaration is also replaced.`,
		Example: `  keyhatchctl reload api
  keyhatchctl reload --dry-run api
  keyhatchctl reload --yes ~/src/api    # in a script`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !flags.yes && !flags.dryRun && !canAsk() {
				return &cli.Error{Err: errors.New("cannot ask for approval: standard input is not a terminal"),
					Hint: "to approve without a question, run keyhatchctl reload --yes " + cli.ShellQuote(args[0]), ExitCode: cli.ExitUsage}
			}
			p, socketPath, err := approve(c, o, flags, !flags.yes && !flags.dryRun, false, func(admin *client.Admin) (proposal, error) {
				project, err := findProject(c.Context(), admin, args[0])
				if err != nil {
					return proposal{}, err
				}
				return proposeManifest(c.Context(), admin, project.Name)
			})
			if err != nil || socketPath == "" || o.asJSON {
				return err
			}
			result, err := p.result(socketPath)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "approved: %s can fetch %s\n", p.request.Name, cli.Plural(len(result.Allowlist), "secret"))
			return nil
		},
	}
	flags.addTo(c)
	return c
}
