package main

import (
	"fmt"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func unregisterCommand(o *globalOptions) *cobra.Command {
	var persist bool
	c := &cobra.Command{
		Use:   "unregister NAME|DIR",
		Short: "Take a project offline and end its connections",
		Example: `  keyhatchctl unregister api
  sudo keyhatchctl unregister --persist ~/src/api    # it is not declared any more either`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.withAdmin(c.Context(), func(admin *client.Admin) error {
				p, err := findProject(c.Context(), admin, args[0])
				if err != nil {
					return err
				}
				if persist { // first: it is what may fail for want of permission
					if err := removeDeclaration(c.Context(), admin, p.Name); err != nil {
						return err
					}
				}
				if err := admin.Unregister(c.Context(), p.Name); err != nil {
					return err
				}
				if p.Declared && !persist {
					fmt.Fprintf(c.ErrOrStderr(), "%s is declared, and comes back at the broker's next start: --persist removes that too\n", p.Name)
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), schema.OKResponse{OK: true})
				}
				fmt.Fprintf(c.OutOrStdout(), "%s is no longer served\n", p.Name)
				return nil
			})
		},
	}
	c.Flags().BoolVar(&persist, "persist", false, "remove its declaration too")
	return c
}
