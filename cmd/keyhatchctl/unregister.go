package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func unregisterCommand(o *globalOptions) *cobra.Command {
	var persist bool
	c := &cobra.Command{
		Use:   "unregister NAME|DIR",
		Short: "Unregister a project and close its connections",
		Long: `unregister ends the access of a project to its secrets. If the project is declared
and you do not use --persist, the broker registers the project again when the broker
starts or receives SIGHUP. With --persist, unregister also removes the declarations
of the project's path. unregister --persist does not remove a declaration that has
the project's name but declares another path. unregister --persist also works if the
broker does not serve the declared project.

` + nameOrDirHelp,
		Example: `  keyhatchctl unregister api
  sudo keyhatchctl unregister --persist ~/src/api    # also remove its declaration`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.withAdmin(c.Context(), func(admin *client.Admin) error {
				command := []string{"unregister"}
				if persist {
					command = append(command, "--persist")
				}
				p, err := findProject(c.Context(), admin, o, args[0], command...)
				notServed, isNotServed := errors.AsType[*notServedError](err)
				if isNotServed {
					p = notServed.project
				} else if err != nil {
					return err
				}
				status, err := admin.Status(c.Context())
				if err != nil {
					return err
				}
				otherDeclarations := declarationsOf(status, p.ProjectPath)
				if isNotServed && slices.ContainsFunc(status.Projects, func(served schema.ProjectStatus) bool { return served.ProjectPath == p.ProjectPath }) {
					otherDeclarations = nil // keep all declarations of the path, because the broker serves one of them
				}
				p.Declared = p.Declared || len(otherDeclarations) > 0
				otherDeclarations = slices.DeleteFunc(otherDeclarations, func(d manifest.Declaration) bool { return d.Name == p.Name })
				persistCommand := unregisterShellCommand(o, p, status)
				var files string // the removed and the kept files
				// Remove the files before the project is unregistered: if this user has no
				// permission to remove them, the project must stay registered.
				if persist {
					for _, d := range otherDeclarations {
						if err := removeDeclaration(status, d.Name); err != nil {
							return err
						}
						file := filepath.Join(status.ProjectsDir, string(d.Name)+".yaml")
						files += "\nalso removed " + cli.PrintableWord(file) + ", which declares the same path"
					}
					kept, err := keptDeclaration(status, p)
					if err == nil && kept == "" {
						err = removeDeclaration(status, p.Name)
					}
					if err != nil {
						return err
					}
					files += kept
				}
				err = admin.Unregister(c.Context(), p.Name)
				switch {
				case err == nil, persist && isNotServed && client.CodeOf(err) == schema.CodeProjectUnknown:
				case isNotServed && p.Declared:
					return &cli.Error{Err: notServed.err.Err, Hint: "to remove the declaration: " + persistCommand}
				default:
					return err
				}
				if o.asJSON {
					return cli.PrintJSON(c.OutOrStdout(), changedProject{true, p.Name, p.ProjectPath})
				}
				result := "unregistered " + cli.PrintableWord(string(p.Name))
				if p.ProjectPath != "" {
					result += " in " + cli.PrintableWord(p.ProjectPath)
				}
				if p.Declared && !persist {
					result += fmt.Sprintf(", but %s is still declared: the broker registers the project again when the broker starts or receives SIGHUP\n", p.Name) +
						"to remove the declaration, run: " + persistCommand
				}
				fmt.Fprintln(c.OutOrStdout(), result+files)
				return nil
			})
		},
	}
	c.Flags().BoolVar(&persist, "persist", false, "also remove the declarations of the project's path")
	return c
}
