package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer/credential"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func dockerCommand(helper credentialHelper, newProject func() *client.Project) *cobra.Command {
	return &cobra.Command{
		Use:   "docker get|list|store|erase",
		Short: "Be docker's credential helper",
		Long: `docker answers for the registries under helpers: docker in the manifest. store is
refused, because a login belongs into the sidecar's store; erase does nothing.`,
		Example: `  echo ghcr.io | keyhatch credential docker get`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var answer []byte
			switch args[0] {
			case "erase":
				_, err := io.Copy(io.Discard, c.InOrStdin())
				return err
			case "store":
				io.Copy(io.Discard, c.InOrStdin())
				// docker shows what stands on standard output.
				fmt.Fprintln(c.OutOrStdout(), "keyhatch keeps no logins: put this one into the sidecar's store, and name it under helpers in the manifest")
				return cli.ExitStatus(cli.ExitFailure)
			case "get", "list":
			default:
				return cli.UsageErrorf("the operation must be get, list, store or erase")
			}
			logins, err := helper.approvedLogins(c.Context(), newProject())
			if err != nil {
				return err
			}
			if args[0] == "list" {
				answer, err = credential.FormatDockerList(logins)
			} else {
				input, readErr := io.ReadAll(io.LimitReader(c.InOrStdin(), 64<<10))
				if readErr != nil {
					return readErr
				}
				registry := strings.TrimSpace(string(input))
				login, ok := credential.FindDockerLogin(logins, registry)
				if !ok {
					fmt.Fprintln(c.OutOrStdout(), credential.DockerNotFoundMessage)
					return cli.ExitStatus(cli.ExitFailure)
				}
				answer, err = fetchFormatted(c.Context(), newProject(), login.Secret, func(value schema.SecretValue) ([]byte, error) {
					return credential.FormatDocker(registry, login, value)
				})
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s\n", answer)
			return nil
		},
	}
}
