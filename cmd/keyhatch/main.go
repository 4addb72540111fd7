// Command keyhatch runs inside project containers. It fetches the secrets that the
// project's manifest allows, and passes them to programs.
package main

import (
	"os"
	"syscall"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/spf13/cobra"
)

func main() {
	c := rootCommand()
	args := expandLinkName(os.Args)
	c.SetArgs(args)
	// Without a handler for SIGQUIT, the Go runtime would print the registers, which can contain a part
	// of a secret.
	exitCode := cli.Run(c, syscall.SIGQUIT)
	if exitCode != 0 {
		printFalse(c, args)
	}
	cli.Exit(exitCode)
}

func rootCommand() *cobra.Command {
	var socket string
	c := &cobra.Command{
		Use:   "keyhatch",
		Short: "Fetch this project's secrets from the broker",
		Long: `Fetch this project's secrets from the broker through the project's socket, which is
mounted into this container. The broker denies every secret that the approved
manifest does not list.

Exit codes:
  0    success
  1    other error
  2    usage error
  3    the broker is unreachable
  4    the broker denied access to the secret
  5    the secret does not exist, or the broker has no secrets
  130  interrupted with Ctrl-C

keyhatch run uses 125 for its own errors, 126 if the command cannot be executed, and
127 if the command does not exist. If the command ran, keyhatch run returns the exit
code of the command.`,
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
	c.PersistentFlags().StringVar(&socket, "socket", defaultPath, "path of the project's socket; without this flag, the path in the variable KEYHATCH_SOCKET")
	newProject := func() *client.Project { return client.NewProject(socket) }
	c.AddCommand(getCommand(newProject), listCommand(newProject), runCommand(newProject), exportCommand(newProject), filesCommand(newProject),
		credentialCommand(newProject, &socket), doctorCommand(&socket))
	return c
}
