package main

import (
	"time"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/sidecar"
	"github.com/spf13/cobra"
)

func runCommand() *cobra.Command {
	var onExit string
	var poll time.Duration
	c := &cobra.Command{
		Use:   "run --store STORE...",
		Short: "Push the store now, and whenever it changes or the broker comes back",
		Long: `run keeps the broker's memory equal to the store. A store that is missing or bad
changes nothing: the broker keeps the last good set, and what is wrong is said
once. After keyhatchctl clear the broker stays empty until the store changes.`,
		Example: `  keyhatch-sidecar run --store dir:$HOME/secrets
  keyhatch-sidecar run --store file:.env --store dir:/run/secrets
  keyhatch-sidecar run --store 'exec:sops -d secrets.yaml' --format yaml --watch secrets.yaml`,
	}
	getStore, getSocket := addStoreFlags(c), addSocketFlag(c)
	c.Flags().DurationVar(&poll, "poll", 30*time.Second, "how often to look whatever the events say; network file systems have none")
	c.Flags().StringVar(&onExit, "on-exit", "keep", "what becomes of the broker's secrets at the end: keep or clear")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if onExit != "keep" && onExit != "clear" {
			return cli.UsageErrorf("--on-exit must be keep or clear")
		}
		if poll <= 0 {
			return cli.UsageErrorf("--poll must be more than 0")
		}
		source, err := getStore()
		if err != nil {
			return err
		}
		socket, err := getSocket()
		if err != nil {
			return err
		}
		log, flush := cli.NewDaemonLogger()
		defer flush()
		config := sidecar.Config{Store: source, Socket: socket, Poll: poll, ClearOnExit: onExit == "clear", Log: log}
		return config.Run(c.Context())
	}
	return c
}
