package main

import (
	"io"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/devcontainer/credential"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func gitCommand(helper credentialHelper, newProject func() *client.Project) *cobra.Command {
	return &cobra.Command{
		Use:   "git get|store|erase",
		Short: "Act as a credential helper for git",
		Long: `Answer git's credential helper requests for the hosts that the manifest declares
under helpers for git. A request must use https, or http if the manifest declares
the host with http://. If the manifest does not declare the protocol and the host of
the request, the answer is empty.

If the URL or git's setting credential.username contains a username, it must be the
username in the manifest or in the secret. If neither the manifest nor the secret
contains a username, git uses the username in the URL or in credential.username. If
there is no username at all, git uses x-access-token.

The operations store and erase succeed but change nothing.`,
		Example: `  keyhatch credential install
  printf 'protocol=https\nhost=github.com\n' | keyhatch credential git get`,
		Args: cobra.MinimumNArgs(1), // a credential helper must ignore unknown operations (gitcredentials(7))
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] != "get" {
				_, err := io.Copy(io.Discard, c.InOrStdin())
				return err
			}
			query, err := credential.ReadGitQuery(c.InOrStdin())
			if err != nil {
				return err
			}
			logins, err := helper.approvedLogins(c.Context(), newProject())
			if err != nil {
				return err
			}
			login, ok := query.FindLogin(logins)
			if !ok {
				return nil
			}
			if err := checkNoOtherHelper(c.Context(), query); err != nil {
				return err
			}
			answer, err := fetchFormatted(c.Context(), newProject(), login.Secret, func(value schema.SecretValue) ([]byte, error) {
				return query.FormatAnswer(login, value)
			})
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(answer)
			return err
		},
	}
}
