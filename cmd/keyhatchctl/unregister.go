package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func unregisterCommand(o *globalOptions) *cobra.Command {
	var persist bool
	c := &cobra.Command{
		Use:   "unregister NAME|DIR",
		Short: "Unregister a project and close its connections",
		Example: `  keyhatchctl unregister api
  sudo keyhatchctl unregister --persist ~/src/api    # also remove its declaration`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.withAdmin(c.Context(), func(admin *client.Admin) error {
				p, err := findProject(c.Context(), admin, args[0], o)
				if notServed, ok := errors.AsType[*notServedError](err); ok {
					p.Name = notServed.name
				} else if err != nil {
					return err
				}
				if persist { // before unregistering, because the user may have no permission for the file
					if err := removeDeclaration(c.Context(), admin, p.Name); err != nil {
						return err
					}
				}
				if err := admin.Unregister(c.Context(), p.Name); err != nil {
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), schema.OKResponse{OK: true})
				}
				if !p.Declared || persist {
					fmt.Fprintf(c.OutOrStdout(), "unregistered %s\n", p.Name)
					return nil
				}
				file, err := declarationPath(c.Context(), admin, p.Name)
				if err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "unregistered %s until the broker starts again, because %s is declared\nto remove its declaration, run: %srm %s\n",
					p.Name, p.Name, sudoToChange(filepath.Dir(file)), cli.ShellQuote(file))
				return nil
			})
		},
	}
	c.Flags().BoolVar(&persist, "persist", false, "also remove the project's declaration")
	return c
}
