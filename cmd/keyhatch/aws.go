package main

import (
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/devcontainer/credential"
	"github.com/spf13/cobra"
)

func awsCommand(helper credentialHelper, newProject func() *client.Project) *cobra.Command {
	return &cobra.Command{
		Use:   "aws",
		Short: "Print AWS credentials for credential_process",
		Long: `Print the AWS key pair that the manifest declares under helpers: aws, in the
format of a credential_process.

The AWS tools prefer environment variables to credential_process. Do not set
AWS_ACCESS_KEY_ID for a program that uses this command.`,
		Example: `  printf '[default]\ncredential_process = keyhatch credential aws\n' >~/.aws/config`,
		RunE: func(c *cobra.Command, _ []string) error {
			return helper.printSecret(c, newProject(), credential.FormatAWS)
		},
	}
}
