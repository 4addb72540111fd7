package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer/credential"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// byName are the links by which git and docker find their helpers.
var byName = map[string][]string{
	"git-credential-keyhatch":    {"credential", "git"},
	"docker-credential-keyhatch": {"credential", "docker"},
}

// arguments are those of the command line, with what the name that the command
// was called by stands for.
func arguments(argv []string) []string {
	return append(append([]string{}, byName[filepath.Base(argv[0])]...), argv[1:]...)
}

func credentialCommand(project func() *client.Project, socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "credential",
		Short: "Answer git, docker, aws and kubectl in their own protocols",
		Long: `credential answers the credential helpers' protocols of git, docker, aws and
kubectl from secrets of this project, without any of them on a disk. Which secret
answers for what is said in the manifest, and approved with it:

  helpers:
    git:     [{host: github.com, secret: GH_TOKEN}]
    docker:  [{host: ghcr.io, secret: GHCR_TOKEN, username: bot}]
    aws:     AWS_KEYS      # a bundle: aws_access_key_id, aws_secret_access_key
    kubectl: KUBE_TOKEN

Each tool is told once where to ask:

  git      keyhatch credential install
  docker   "credHelpers": {"ghcr.io": "keyhatch"} in ~/.docker/config.json
  aws      credential_process = keyhatch credential aws, in ~/.aws/config
  kubectl  users: [{name: me, user: {exec: {apiVersion: client.authentication.k8s.io/v1,
           command: keyhatch, args: [credential, kubectl], interactiveMode: Never}}}]

docker finds its helper by the name docker-credential-keyhatch, and git may by
git-credential-keyhatch: links to keyhatch, which then knows what it is for.`,
		Example: `  keyhatch credential install
  printf 'protocol=https\nhost=github.com\n' | keyhatch credential git get`,
	}
	c.AddCommand(gitCommand(project), dockerCommand(project), awsCommand(project), kubectlCommand(project), installCommand(project, socket))
	return c
}

// helpers are those of the manifest that was approved, which the broker knows:
// the tools call from any directory.
func helpers(ctx context.Context, project *client.Project) (schema.Helpers, error) {
	if err := sameProtocol(ctx, project, 0); err != nil {
		return schema.Helpers{}, failure(err)
	}
	info, err := project.Info(ctx)
	if err != nil {
		return schema.Helpers{}, failure(err)
	}
	if info.Helpers == nil {
		return schema.Helpers{}, nil
	}
	return *info.Helpers, nil
}

// fetched gets the secret that answers and has it made into what the tool reads.
func fetched(ctx context.Context, project *client.Project, name schema.SecretName, make func(schema.SecretValue) ([]byte, error)) ([]byte, error) {
	answer, err := project.Get(ctx, name, 0)
	if err != nil {
		return nil, failure(err)
	}
	text, err := make(answer.SecretValue)
	if errors.Is(err, credential.ErrCredential) {
		err = &cli.Failure{Err: err, Hint: "correct it in the sidecar's store, or helpers in the manifest"}
	}
	return text, err
}

func gitCommand(project func() *client.Project) *cobra.Command {
	return &cobra.Command{
		Use:   "git get|store|erase",
		Short: "Be git's credential helper",
		Long: `git answers for the hosts under helpers: git in the manifest, over https unless
the manifest says http://, and says nothing for any other. store and erase do
nothing: the secret is kept where it is.`,
		Example: `  git config --global credential.https://github.com.helper '!keyhatch credential git'`,
		Args:    cobra.MinimumNArgs(1), // git documentation, gitcredentials: operations to come are to be ignored
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] != "get" {
				_, err := io.Copy(io.Discard, c.InOrStdin())
				return err
			}
			query, err := credential.ReadGitQuery(c.InOrStdin())
			if err != nil {
				return err
			}
			h, err := helpers(c.Context(), project())
			if err != nil {
				return err
			}
			login, ok := query.Login(h.Git)
			if !ok {
				return nil
			}
			if err := alone(c.Context(), query); err != nil {
				return err
			}
			text, err := fetched(c.Context(), project(), login.Secret, func(value schema.SecretValue) ([]byte, error) {
				return query.Answer(login, value)
			})
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
}

func dockerCommand(project func() *client.Project) *cobra.Command {
	return &cobra.Command{
		Use:   "docker get|list|store|erase",
		Short: "Be docker's credential helper",
		Long: `docker answers for the registries under helpers: docker in the manifest. store is
refused, because a login belongs into the sidecar's store; erase does nothing.`,
		Example: `  echo ghcr.io | keyhatch credential docker get`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var text []byte
			switch args[0] {
			case "erase":
				_, err := io.Copy(io.Discard, c.InOrStdin())
				return err
			case "store":
				io.Copy(io.Discard, c.InOrStdin())
				// docker shows what stands on standard output.
				fmt.Fprintln(c.OutOrStdout(), "keyhatch keeps no logins: put this one into the sidecar's store, and name it under helpers in the manifest")
				return cli.Exit(cli.ExitOther)
			case "get", "list":
			default:
				return cli.Usage("the operation must be get, list, store or erase")
			}
			h, err := helpers(c.Context(), project())
			if err != nil {
				return err
			}
			if args[0] == "list" {
				text, err = credential.DockerList(h.Docker)
			} else {
				asked, readErr := io.ReadAll(io.LimitReader(c.InOrStdin(), 64<<10))
				if readErr != nil {
					return readErr
				}
				registry := strings.TrimSpace(string(asked))
				login, ok := credential.DockerLogin(h.Docker, registry)
				if !ok {
					fmt.Fprintln(c.OutOrStdout(), credential.DockerNotFound)
					return cli.Exit(cli.ExitOther)
				}
				text, err = fetched(c.Context(), project(), login.Secret, func(value schema.SecretValue) ([]byte, error) {
					return credential.DockerAnswer(registry, login, value)
				})
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s\n", text)
			return nil
		},
	}
}

func awsCommand(project func() *client.Project) *cobra.Command {
	return &cobra.Command{
		Use:   "aws",
		Short: "Be a credential_process of the AWS tools",
		Long: `aws prints the keys that helpers: aws in the manifest names. The environment beats
credential_process, so a program that is to use it must not have AWS_ACCESS_KEY_ID.`,
		Example: `  printf '[default]\ncredential_process = keyhatch credential aws\n' >~/.aws/config`,
		RunE: func(c *cobra.Command, _ []string) error {
			return printAnswer(c, project(), "aws", func(h schema.Helpers) schema.SecretName { return h.AWS }, credential.AWSAnswer)
		},
	}
}

func kubectlCommand(project func() *client.Project) *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl",
		Short: "Be an exec credential plugin of kubectl",
		Long:  `kubectl prints the token or certificate that helpers: kubectl in the manifest names.`,
		Example: `  kubectl config set-credentials me --exec-command=keyhatch --exec-arg=credential --exec-arg=kubectl \
    --exec-api-version=client.authentication.k8s.io/v1 --exec-interactive-mode=Never`,
		RunE: func(c *cobra.Command, _ []string) error {
			return printAnswer(c, project(), "kubectl", func(h schema.Helpers) schema.SecretName { return h.Kubectl },
				func(name schema.SecretName, value schema.SecretValue) ([]byte, error) {
					return credential.KubectlAnswer(os.Getenv("KUBERNETES_EXEC_INFO"), name, value)
				})
		},
	}
}

// printAnswer is a helper that has one secret.
func printAnswer(c *cobra.Command, project *client.Project, tool string, of func(schema.Helpers) schema.SecretName, answer func(schema.SecretName, schema.SecretValue) ([]byte, error)) error {
	h, err := helpers(c.Context(), project)
	if err != nil {
		return err
	}
	name := of(h)
	if name == "" {
		return &cli.Failure{Err: fmt.Errorf("the manifest names no secret for %s", tool),
			Hint: "add helpers: {" + tool + ": NAME} to it, then on the host: keyhatchctl reload DIR"}
	}
	text, err := fetched(c.Context(), project, name, func(value schema.SecretValue) ([]byte, error) { return answer(name, value) })
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s\n", text)
	return err
}
