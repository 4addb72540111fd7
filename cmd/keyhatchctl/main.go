// Command keyhatchctl is for the operator of a broker. It shows the broker's status,
// registers projects, and approves their manifests.
package main

import (
	"syscall"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/spf13/cobra"
)

func main() {
	if isTreeChild() {
		runTreeChild(runTreeTask)
		return
	}
	// Without a handler for SIGQUIT, the Go runtime would print the registers, which can contain a part
	// of a secret.
	cli.Exit(cli.Run(newRootCommand(), syscall.SIGQUIT))
}

func newRootCommand() *cobra.Command {
	o := &globalOptions{}
	c := &cobra.Command{
		Use:   "keyhatchctl",
		Short: "Operate a keyhatch broker",
		Long: `keyhatchctl uses the broker's admin socket. Every user who can open the admin socket
can use keyhatchctl. If the broker requires an admin token, the user must also be
able to read the file with the token. To change a declaration, the user must also
have permission to write the declaration file. If systemd starts the broker of the
system, or if the broker runs as root, only root and the members of the group
keyhatch can open the admin socket.`,
		Example: `  keyhatchctl status
  keyhatchctl register ~/src/api
  keyhatchctl reload ~/src/api`,
	}
	c.PersistentFlags().StringVar(&o.socket, "socket", "", "`PATH` of the admin socket (default: /run/keyhatch/admin/admin.sock for root, otherwise $XDG_RUNTIME_DIR/keyhatch/admin/admin.sock)")
	cli.AddTokenFileFlag(c.PersistentFlags(), &o.tokenFile, cli.TokenFileUsage)
	c.PersistentFlags().BoolVar(&o.asJSON, "json", false, "print the result as JSON")
	c.AddCommand(
		statusCommand(o), projectsCommand(o), registerCommand(o), unregisterCommand(o),
		reloadCommand(o), declareCommand(o), listCommand(o), pushCommand(o), clearCommand(o), upCommand(o), doctorCommand(o),
		explainCommand(o), eventsCommand(o),
	)
	return c
}
