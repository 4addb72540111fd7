package main

import (
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/devcontainer/credential"
	"github.com/spf13/cobra"
)

func awsCommand(helper credentialHelper, newProject func() *client.Project) *cobra.Command {
	return &cobra.Command{
		Use:   "aws",
		Short: "Be a credential_process of the AWS tools",
		Long: `aws prints the keys that helpers: aws in the manifest names. The environment beats
credential_process, so a program that is to use it must not have AWS_ACCESS_KEY_ID.`,
		Example: `  printf '[default]\ncredential_process = keyhatch credential aws\n' >~/.aws/config`,
		RunE: func(c *cobra.Command, _ []string) error {
			return helper.printSecret(c, newProject(), credential.FormatAWS)
		},
	}
}
