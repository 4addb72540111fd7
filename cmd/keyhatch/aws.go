package main

import (
	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/devcontainer/credential"
	"github.com/spf13/cobra"
)

func awsCommand(helper credentialHelper, newProject func() *client.Project) *cobra.Command {
	return &cobra.Command{
		Use:   "aws",
		Short: "Print AWS credentials in the format of credential_process",
		Long: `Print the AWS key pair that the manifest declares under helpers for aws, in the
format that the AWS tools expect from a credential_process.

Do not set the variable AWS_ACCESS_KEY_ID, because the AWS tools then use this
variable and do not run the credential_process.`,
		Example: `  aws configure set credential_process 'keyhatch credential aws'`,
		RunE: func(c *cobra.Command, _ []string) error {
			return helper.printSecret(c, newProject(), credential.FormatAWS)
		},
	}
}
