package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/keyhatch/keyhatch/devcontainer/credential"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// A credentialHelper answers the credential protocol of one program.
type credentialHelper struct {
	// name is the helper's key under helpers in the manifest, its JSON field in
	// schema.Helpers, and the name of its command.
	name string
	// linkName is the name of the link through which the program starts keyhatch. linkName
	// is empty if the program instead runs keyhatch credential NAME.
	linkName string

	// Exactly one of the functions logins and secret is set. The function returns the helper's part
	// of the approved manifest: the logins for several hosts, or the name of one secret.
	logins func(schema.Helpers) []schema.Login
	secret func(schema.Helpers) schema.SecretName

	// command returns the subcommand of keyhatch credential that the program runs.
	command func(credentialHelper, func() *client.Project) *cobra.Command

	// install configures the program to run keyhatch. uninstall removes this configuration.
	// Both functions are nil if the user must configure the program.
	install   func(helper credentialHelper, c *cobra.Command, project *client.Project, socket string) error
	uninstall func(c *cobra.Command) error
}

// approvedLogins returns the helper's logins from the approved manifest.
func (h credentialHelper) approvedLogins(ctx context.Context, project *client.Project) ([]schema.Login, error) {
	approved, err := approvedHelpers(ctx, project)
	if err != nil {
		return nil, err
	}
	return h.logins(approved), nil
}

// printSecret prints the secret that the manifest declares for the helper, formatted for the
// program.
func (h credentialHelper) printSecret(c *cobra.Command, project *client.Project, format func(schema.SecretName, schema.SecretValue) ([]byte, error)) error {
	approved, err := approvedHelpers(c.Context(), project)
	if err != nil {
		return err
	}
	name := h.secret(approved)
	if name == "" {
		return &cli.Error{Err: fmt.Errorf("the approved manifest does not declare a secret for the credential helper %s", h.name),
			Hint: "add helpers: {" + h.name + ": NAME} to the manifest, then " + devcontainer.AskOperator + "keyhatchctl reload DIR"}
	}
	text, err := fetchFormatted(c.Context(), project, name, func(value schema.SecretValue) ([]byte, error) { return format(name, value) })
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s\n", text)
	return err
}

// approvedHelpers returns the section helpers of the approved manifest. It gets the section
// from the broker, because a program can start its helper outside of the project's directory.
func approvedHelpers(ctx context.Context, project *client.Project) (schema.Helpers, error) {
	if err := checkProtocol(ctx, project, 0); err != nil {
		return schema.Helpers{}, withHint(err)
	}
	info, err := project.Info(ctx, 0)
	if err != nil {
		return schema.Helpers{}, withHint(err)
	}
	if info.Helpers == nil {
		return schema.Helpers{}, nil
	}
	return *info.Helpers, nil
}

// fetchFormatted fetches a secret and formats it for the program.
func fetchFormatted(ctx context.Context, project *client.Project, name schema.SecretName, format func(schema.SecretValue) ([]byte, error)) ([]byte, error) {
	answer, err := project.Get(ctx, name, 0)
	if err != nil {
		return nil, withHintFor(err, name, "")
	}
	text, err := format(answer.SecretValue)
	switch {
	case errors.Is(err, credential.ErrUnusable):
		err = &cli.Error{Err: err, Hint: "correct the secret in the sidecar's store, or name another secret in the section helpers of the manifest, then " + devcontainer.AskOperator + "keyhatchctl reload DIR"}
	case errors.Is(err, credential.ErrOtherUsername):
		err = &cli.Error{Err: err, Hint: "remove the username from the URL and from git's configuration; git remote -v shows the URL, and git config --show-origin --get-regexp 'credential.*username' shows the configuration"}
	}
	return text, err
}
