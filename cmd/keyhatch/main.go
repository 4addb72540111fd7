// Command keyhatch runs inside project containers: it fetches the secrets that
// the project's manifest allows and hands them to programs.
package main

import (
	"os"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/spf13/cobra"
)

func main() {
	c := rootCommand()
	c.SetArgs(expandLinkName(os.Args))
	os.Exit(cli.Run(c))
}

func rootCommand() *cobra.Command {
	var socket string
	c := &cobra.Command{
		Use:   "keyhatch",
		Short: "Fetch the secrets that this project may have",
		Long: `keyhatch fetches secrets from the broker's socket that is mounted into this
container. The project's manifest decides which; whatever else there is, is
denied.

Exit codes: 0 ok, 1 other, 2 usage, 3 broker unreachable, 4 denied, 5 not found
or not loaded. run exits 125 for its own failures, 126 and 127 where the command
cannot be run or found, and otherwise as the command does.`,
		Example: `  keyhatch list
  keyhatch get NPM_TOKEN
  keyhatch run -- npm ci
  eval "$(keyhatch export)"
  keyhatch files --watch`,
	}
	defaultPath := os.Getenv("KEYHATCH_SOCKET")
	if defaultPath == "" {
		defaultPath = defaultSocket
	}
	c.PersistentFlags().StringVar(&socket, "socket", defaultPath, "the project's socket (KEYHATCH_SOCKET)")
	newProject := func() *client.Project { return client.NewProject(socket) }
	c.AddCommand(getCommand(newProject), listCommand(newProject), runCommand(newProject), exportCommand(newProject), filesCommand(newProject),
		credentialCommand(newProject, &socket), doctorCommand(&socket))
	return c
}
