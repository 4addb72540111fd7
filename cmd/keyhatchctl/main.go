// Command keyhatchctl is for the operator of a broker: it says how the broker
// is, brings projects online, and approves their manifests.
package main

import (
	"os"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/spf13/cobra"
)

func main() { os.Exit(cli.Run(newRootCommand())) }

func newRootCommand() *cobra.Command {
	o := &globalOptions{}
	c := &cobra.Command{
		Use:   "keyhatchctl",
		Short: "Operate a keyhatch broker",
		Long: `keyhatchctl speaks to the broker's admin socket. Whoever can open that socket can
do everything here: it belongs to root and to group keyhatch.`,
		Example: `  keyhatchctl status
  keyhatchctl register ~/src/api
  keyhatchctl reload ~/src/api`,
	}
	c.PersistentFlags().StringVar(&o.socket, "socket", "", "the admin socket (default: /run/keyhatch/admin/admin.sock for root, else below $XDG_RUNTIME_DIR)")
	c.PersistentFlags().BoolVar(&o.asJSON, "json", false, "print the broker's answer as JSON")
	c.AddCommand(
		statusCommand(o), projectsCommand(o), registerCommand(o), unregisterCommand(o),
		reloadCommand(o), listCommand(o), pushCommand(o), clearCommand(o), upCommand(o), doctorCommand(o),
	)
	return c
}
