package main

import (
	"os"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/devcontainer/credential"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func kubectlCommand(helper credentialHelper, newProject func() *client.Project) *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl",
		Short: "Print a Kubernetes credential for kubectl",
		Long: `Print the token or certificate that the manifest declares under helpers for kubectl,
in the format of an exec credential plugin.`,
		Example: `  kubectl config set-credentials me --exec-command=keyhatch --exec-arg=credential --exec-arg=kubectl \
    --exec-api-version=client.authentication.k8s.io/v1 --exec-interactive-mode=Never`,
		RunE: func(c *cobra.Command, _ []string) error {
			return helper.printSecret(c, newProject(), func(name schema.SecretName, value schema.SecretValue) ([]byte, error) {
				return credential.FormatKubectl(os.Getenv("KUBERNETES_EXEC_INFO"), name, value)
			})
		},
	}
}
