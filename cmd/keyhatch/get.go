package main

import (
	"os"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func getCommand(newProject func() *client.Project) *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use:   "get NAME",
		Short: "Print one secret",
		Long: `get prints the secret's bytes as they are, with a newline behind them only on a
terminal. A bundle is printed as JSON.`,
		Example: `  keyhatch get NPM_TOKEN
  keyhatch get --wait 15s aws | jq -r .aws_access_key_id`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := parseSecretName(args[0])
			if err == nil {
				err = checkWait(wait)
			}
			if err != nil {
				return err
			}
			started := time.Now()
			if err := checkProtocol(c.Context(), newProject(), wait); err != nil {
				return withHint(err)
			}
			answer, err := newProject().Get(c.Context(), name, max(wait-time.Since(started), 0))
			if err != nil {
				return withHint(err)
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
	c.Flags().DurationVar(&wait, "wait", 0, "how long to wait for a secret that is not there yet")
	return c
}
