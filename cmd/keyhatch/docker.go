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
		Short: "Act as a credential helper for docker",
		Long: `Answer docker's credential helper requests for the registries that the manifest
declares under helpers for docker.

The operation store fails, because a login must be in the sidecar's store. The
operation erase succeeds but changes nothing.`,
		Example: `  echo ghcr.io | keyhatch credential docker get`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var answer []byte
			switch args[0] {
			case "erase":
				_, err := io.Copy(io.Discard, c.InOrStdin())
				return err
			case "store":
				if _, err := io.Copy(io.Discard, c.InOrStdin()); err != nil {
					return err
				}
				// docker shows the helper's standard output to the user.
				fmt.Fprintln(c.OutOrStdout(), "keyhatch does not store logins: add the login to the sidecar's store, and declare the login under helpers in the manifest")
				return cli.ExitStatus(cli.ExitFailure)
			case "get", "list":
			default:
				return cli.UsageErrorf("the operation must be get, list, store, or erase")
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
