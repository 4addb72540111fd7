package main

import (
	"fmt"
	"path/filepath"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/spf13/cobra"
)

func registerCommand(o *globalOptions) *cobra.Command {
	var options registerOptions
	var flags approvalFlags
	c := &cobra.Command{
		Use:   "register DIR",
		Short: "Register a project and approve its current manifest",
		Long: `register shows the effects of the manifest of the project in DIR. On a terminal,
register asks for your approval before it changes a registration, unless you use
--yes. After your approval, or if no approval is necessary, the broker creates the
project's socket. With --dry-run, register only shows the effects. If the project is
already registered or declared, register shows the differences, and applies them
after your approval. register also updates an existing declaration of the project. If
the manifest in the declaration was edited and the broker has not applied the edit,
register fails and changes nothing.

Without a terminal, --yes is necessary to register a new project if its manifest has
a dangerous effect, or if the path DIR contains a symbolic link. Without a terminal,
--yes is also necessary if a registered project would change in a way that no flag
requested, for example because its manifest was edited.

The name of the project is the value of project in the manifest. If another project
has the name in the manifest, for example another clone of the same repository,
choose another name with --name.

Root, the broker's user, and the owner of DIR can use the project's socket. To allow
another user to use the project's socket, for example the container's user, add
--allow-uid. If you register a project again, the uids that are already allowed stay
allowed. To remove an allowed uid, run keyhatchctl unregister --persist, and
register the project again.

With --persist, register also writes the approved manifest to the broker's projects
directory. The broker then registers the project each time the broker starts, also
after a reboot.`,
		Example: `  keyhatchctl register ~/src/api
  keyhatchctl register --name api-fix ~/worktrees/fix
  sudo keyhatchctl register --persist ~/src/api
  keyhatchctl register ~/src/api --allow-uid 1000`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("name") && options.name == "" {
				return cli.UsageErrorf("--name must not be empty")
			}
			dir, err := resolveProjectDir(o, "register", args[0])
			if err != nil {
				return err
			}
			p, socketPath, err := approve(c, o, flags, func(admin *client.Admin) (proposal, error) {
				return proposeRegistration(c.Context(), admin, o, dir, options)
			})
			if err != nil || socketPath == "" || o.asJSON {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "registered %s: its socket is %s\nmount %s at /run/keyhatch in the project's container\n",
				p.request.Name, socketPath, filepath.Dir(socketPath))
			return nil
		},
	}
	flags.addTo(c)
	addUIDFlag(c, &options.uids, "also allow this `UID` to use the socket; can be repeated")
	c.Flags().StringVar(&options.name, "name", "", "`NAME` of the project (default: the value of project in the manifest)")
	c.Flags().BoolVar(&options.persist, "persist", false, "declare the project, so that the broker registers the project each time the broker starts")
	return c
}

// addUIDFlag adds the flag --allow-uid to c. DefValue is "", so that the help does not show [] as
// the default value.
func addUIDFlag(c *cobra.Command, uids *[]uint, usage string) {
	c.Flags().UintSliceVar(uids, "allow-uid", nil, usage)
	c.Flags().Lookup("allow-uid").DefValue = ""
}
