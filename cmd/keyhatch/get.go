package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func getCommand(newProject func() *client.Project) *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use:   "get NAME",
		Short: "Print one secret",
		Long: `Print the exact bytes of a secret. get adds a newline only if the output is a
terminal. get prints a bundle as JSON.`,
		Example: `  keyhatch get NPM_TOKEN
  keyhatch get --wait 15s aws | jq -r .aws_access_key_id`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if bundle, field, found := strings.Cut(args[0], "/"); found && schema.ValidSecretName(bundle) && schema.ValidSecretName(field) {
				return &cli.Error{
					Err:      fmt.Errorf("%q is not the name of a secret: get has no syntax for a field of a bundle", args[0]),
					Hint:     "get prints a bundle as JSON, from which jq selects a field: keyhatch get " + bundle + " | jq -r " + cli.ShellQuote(`.["`+field+`"]`),
					ExitCode: cli.ExitUsage,
				}
			}
			name, err := parseSecretName(args[0])
			if err == nil {
				err = checkWait(wait)
			}
			if err != nil {
				return err
			}
			waitCommand := "keyhatch get --wait 15s " + string(name)
			started := time.Now()
			if err := checkProtocol(c.Context(), newProject(), wait); err != nil {
				return withHintFor(err, name, waitCommand)
			}
			answer, err := newProject().Get(c.Context(), name, max(wait-time.Since(started), 0))
			if err != nil {
				return withHintFor(err, name, waitCommand)
			}
			value, err := devcontainer.ValueBytes(answer.SecretValue)
			if err != nil {
				return err
			}
			if term.IsTerminal(int(os.Stdout.Fd())) {
				value = append(value, '\n')
			}
			_, err = os.Stdout.Write(value)
			return err
		},
	}
	c.Flags().DurationVar(&wait, "wait", 0, "maximum time to wait for a missing secret, for example 15s")
	return c
}
