// Command keyhatch-sidecar runs in the trusted sidecar. It watches a store of secrets
// and pushes the secrets into the broker's memory.
package main

import (
	"os"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/spf13/cobra"
)

func main() { os.Exit(cli.Run(command())) }

func command() *cobra.Command {
	c := &cobra.Command{
		Use:   "keyhatch-sidecar",
		Short: "Watch a store of secrets and push the secrets to the broker",
		Long: `A store is the place that contains your secrets. keyhatch-sidecar supports three
kinds of stores:

  dir:PATH      A directory. Each file is a secret, and the name of the file is
                the name of the secret. Each subdirectory is a bundle, and its
                files are the fields of the bundle. Names that begin with a dot
                are ignored. One newline at the end of a file is removed.
  file:PATH     A dotenv, YAML, or JSON file. The name of the file or --format
                sets the format.
  exec:COMMAND  The output of a shell command, in the format of --format.

run pushes a store. set, rm, and list edit a directory.`,
		Example: `  keyhatch-sidecar set NPM_TOKEN --store dir:$HOME/secrets
  keyhatch-sidecar run --store dir:$HOME/secrets`,
	}
	c.AddCommand(runCommand(), healthCommand(), setCommand(), removeCommand(), listCommand())
	return c
}
