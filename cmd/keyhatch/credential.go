package main

import (
	"path/filepath"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// credentialHelpers lists the credential helpers. The subcommands of keyhatch credential,
// the link names, and keyhatch credential install are based on this list.
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

// expandLinkName returns the arguments of a command line. If keyhatch was started through
// a helper's link, such as git-credential-keyhatch, expandLinkName inserts the helper's
// command before the arguments.
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
		Short: "Give secrets to git, docker, aws, and kubectl",
		Long: `Give this project's secrets to git, docker, aws, and kubectl through their own
credential helper protocols. keyhatch writes no secret to disk.

The approved manifest declares the secret for each tool:

  helpers:
    git:     [{host: github.com, secret: GH_TOKEN}]
    docker:  [{host: ghcr.io, secret: GHCR_TOKEN, username: bot}]
    aws:     AWS_KEYS      # a bundle: aws_access_key_id, aws_secret_access_key
    kubectl: KUBE_TOKEN

Configure each tool once:

  git      keyhatch credential install
  docker   "credHelpers": {"ghcr.io": "keyhatch"} in ~/.docker/config.json
  aws      credential_process = keyhatch credential aws, in ~/.aws/config
  kubectl  users: [{name: me, user: {exec: {apiVersion: client.authentication.k8s.io/v1,
           command: keyhatch, args: [credential, kubectl], interactiveMode: Never}}}]

If you use docker, create a link to keyhatch with the name
docker-credential-keyhatch in a directory of PATH. For git, a link with the name
git-credential-keyhatch is optional. The Dev Container Feature creates the links for
docker and git.`,
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
		Short: "Configure git to get its credentials from keyhatch",
		Long: `Configure git to get its credentials from keyhatch for each host that the manifest
declares under helpers for git. For each host, install writes two helper lines to
this user's git configuration, for example:

  [credential "https://github.com/"]
      helper =
      helper = !keyhatch credential git

The empty helper line turns off all earlier helpers, but only for this host. Without
the empty line, git would give each working credential to all earlier helpers, and
some helpers would store the credential.

If another program, such as an editor, adds a helper for the host after keyhatch,
keyhatch gives git no credential, because git would give the credential to the added
helper, too. To make keyhatch the last helper again, run keyhatch credential install
again.

install does not change the helpers of other programs in git's configuration. After
keyhatch credential install --remove, git uses the helpers of other programs again.`,
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
	c.Flags().BoolVar(&remove, "remove", false, "remove the lines that install wrote to the git configuration")
	return c
}
