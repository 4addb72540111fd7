// Command keyhatch-sidecar runs in the trusted sidecar: it watches a store of
// secrets and pushes what is there into the broker's memory.
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
		Short: "Watch a store of secrets and push what is there to the broker",
		Long: `A store is where you keep secrets:

  dir:PATH      a directory: each file is a secret named by the file, each
                subdirectory a bundle whose files are its fields. Names that
                begin with a dot are passed over, and one newline at the end of
                a file is not part of the secret.
  file:PATH     a dotenv, YAML or JSON file, by its name or by --format.
  exec:COMMAND  what a command prints, in the format that --format says.

set, rm and list work on a directory.`,
		Example: `  keyhatch-sidecar set NPM_TOKEN --store dir:$HOME/secrets
  keyhatch-sidecar run --store dir:$HOME/secrets`,
	}
	c.AddCommand(runCommand(), healthCommand(), setCommand(), removeCommand(), listCommand())
	return c
}
