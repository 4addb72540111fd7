package main

import (
	"path/filepath"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// credentialHelpers lists the credential helpers. The commands, the links and install
// are made from this table.
var credentialHelpers = []credentialHelper{
	{
		name: "git", linkName: "git-credential-keyhatch",
		logins:  func(h schema.Helpers) []schema.Login { return h.Git },
		command: gitCommand, install: installGit, uninstall: uninstallGit,
	},
	{
		name: "docker", linkName: "docker-credential-keyhatch",
		logins:  func(h schema.Helpers) []schema.Login { return h.Docker },
		command: dockerCommand,
	},
	{
		name:    "aws",
		secret:  func(h schema.Helpers) schema.SecretName { return h.AWS },
		command: awsCommand,
	},
	{
		name:    "kubectl",
		secret:  func(h schema.Helpers) schema.SecretName { return h.Kubectl },
		command: kubectlCommand,
	},
}

// expandLinkName returns the arguments of a command line. If keyhatch was started under a
// helper's link name, they begin with the helper's command.
func expandLinkName(argv []string) (args []string) {
	for _, helper := range credentialHelpers {
		if helper.linkName != "" && helper.linkName == filepath.Base(argv[0]) {
			return append([]string{"credential", helper.name}, argv[1:]...)
		}
	}
	return argv[1:]
}

func credentialCommand(newProject func() *client.Project, socket *string) *cobra.Command {
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
	for _, helper := range credentialHelpers {
		c.AddCommand(helper.command(helper, newProject))
	}
	c.AddCommand(installCommand(newProject, socket))
	return c
}

func installCommand(newProject func() *client.Project, socket *string) *cobra.Command {
	var remove bool
	c := &cobra.Command{
		Use:   "install [--remove]",
		Short: "Tell git to ask keyhatch for the manifest's hosts",
		Long: `install writes, for each host under helpers: git in the manifest, two lines into
git's configuration of this user:

  [credential "https://github.com/"]
      helper =
      helper = !keyhatch credential git

The empty one makes git forget the helpers before it, for that host: git hands
what one helper answers to all of them to keep. One that comes behind it later,
from an editor say, is noticed when git asks, and nothing is answered then:
install again. What was there stays, for this host too, and counts again after
--remove.`,
		Example: `  keyhatch credential install
  keyhatch credential install --remove`,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, helper := range credentialHelpers {
				var err error
				switch {
				case helper.install == nil:
				case remove:
					err = helper.uninstall(c)
				default:
					err = helper.install(helper, c, newProject(), *socket)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&remove, "remove", false, "take it back")
	return c
}
