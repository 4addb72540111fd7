package main

import (
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
		Long: `reload reads the project's manifest and shows every effect that has changed since
the last approval. If an effect has changed, reload asks for your approval, unless
you use --yes or --dry-run. Without a terminal, reload cannot ask, so add --yes to
approve the changes. reload approves exactly the manifest that it showed, even if
somebody changes the file before you answer. If the project is declared, reload also replaces the manifest in
the project's declaration. If the manifest in the declaration was edited and the
broker has not applied the edit, reload fails and changes nothing.

` + nameOrDirHelp,
		Example: `  keyhatchctl reload api
  keyhatchctl reload --dry-run api
  keyhatchctl reload --yes ~/src/api    # in a script`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, socketPath, err := approve(c, o, flags, func(admin *client.Admin) (proposal, error) {
				project, err := findProject(c.Context(), admin, o, args[0], "reload")
				if err != nil {
					return proposal{}, err
				}
				p, err := proposeManifest(c.Context(), admin, project.Name)
				p.approvalCommand = o.command("reload", "--yes", string(project.Name))
				return p, err
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
