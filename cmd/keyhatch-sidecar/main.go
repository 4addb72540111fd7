// Command keyhatch-sidecar runs in the trusted sidecar. It watches a store of secrets, pushes the
// secrets into the broker's memory, and edits stores that are directories.
package main

import (
	"os"
	"syscall"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/spf13/cobra"
)

func main() {
	c := command()
	// Most commands have secrets in their memory, which other processes of the same user must not read.
	// The command run also calls secmem.Harden.
	if err := secmem.MakeUndumpable(); err != nil {
		os.Exit(cli.PrintError(c, err))
	}
	// Without a handler for SIGQUIT, the Go runtime would print the registers, which can contain a part
	// of a secret.
	cli.Exit(cli.Run(c, syscall.SIGQUIT))
}

func command() *cobra.Command {
	c := &cobra.Command{
		Use:   "keyhatch-sidecar",
		Short: "Watch a store of secrets and push the secrets to the broker",
		Long: `A store is the place that contains your secrets. keyhatch-sidecar supports three
kinds of stores:

  dir:PATH      A directory. Each file is a secret, and the name of the file is
                the name of the secret. Each subdirectory is a bundle, and the
                files in the subdirectory are the fields of the bundle. The
                sidecar ignores files and subdirectories with a name that begins
                with a dot, temporary files of editors, and the directory
                lost+found. The sidecar follows symbolic links. One newline at
                the end of a text file is not part of the secret. Every byte of
                a binary file is part of the secret. If a file is empty, open
                for writing, or not readable, the broker keeps the old value of
                the secret. If the sidecar has not been able to use a file since
                its start, the secret is missing in the broker.
  file:PATH     A dotenv, YAML, or JSON file. The file name sets the format, for
                example .env or secrets.yaml. If the file name has no known
                extension, use --format.
  exec:COMMAND  The standard output of a shell command. The flag --format sets
                the format of the command's output. The standard error of the command is
                only shown on a terminal. To detect every error of a pipe, use
                exec:bash -o pipefail -c 'PIPE'.

The command run pushes the secrets of a store to the broker. The command health checks
that the broker has the secrets of the store. The commands set and rm change a dir:PATH
store, and list prints the names in a dir:PATH store.`,
		Example: `  keyhatch-sidecar set NPM_TOKEN --store dir:$HOME/secrets
  keyhatch-sidecar run --store dir:$HOME/secrets`,
	}
	c.AddCommand(runCommand(), healthCommand(), readCommand(), setCommand(), removeCommand(), listCommand())
	return c
}
