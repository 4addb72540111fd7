package main

import (
	"fmt"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func declareCommand(o *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "declare NAME|DIR",
		Short: "Declare a project with its current registration",
		Long: `declare writes the registration of a project, with its approved manifest, to the
broker's projects directory. The broker registers a declared project each time the
broker starts. declare replaces an existing declaration of the project, but not a
declaration of another path. declare does not read the manifest in the project's
directory, so declare approves no change of this manifest. To approve and declare the
current manifest, use keyhatchctl register --persist.

` + nameOrDirHelp,
		Example: `  sudo keyhatchctl declare api`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.withAdmin(c.Context(), func(admin *client.Admin) error {
				p, err := findProject(c.Context(), admin, o, args[0], "declare")
				if err != nil {
					return err
				}
				served, err := admin.Inspect(c.Context(), p.Name)
				if err != nil {
					return err
				}
				status, err := admin.Status(c.Context())
				if err != nil {
					return err
				}
				if err := checkApplied(status, served, func(manifest.Declaration) bool { return true }); err != nil {
					return err
				}
				request := schema.RegisterRequest{
					Name: served.Name, ProjectPath: served.ProjectPath, Manifest: &served.Manifest,
					AllowUIDs: served.AllowUIDs, DevcontainerIDs: served.DevcontainerIDs,
				}
				if err := checkDeclaredPath(status, served.Name, request); isOtherPath(err) {
					return err
				}
				if _, err := declareAndRegister(c.Context(), admin, request, served.Name, false); err != nil {
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), changedProject{true, served.Name, served.ProjectPath})
				}
				fmt.Fprintf(c.OutOrStdout(), "declared %s in %s with its current registration\n", served.Name, cli.PrintableWord(served.ProjectPath))
				return nil
			})
		},
	}
}
