package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/broker/secmem"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/sidecar"
	"github.com/spf13/cobra"
)

func runCommand() *cobra.Command {
	var onExit string
	var poll time.Duration
	c := &cobra.Command{
		Use:   "run --store STORE...",
		Short: "Keep the broker's secrets equal to the store",
		Long: `run pushes all secrets of the store to the broker. run pushes all secrets again when
the store changes and when the broker restarts.

If run cannot read the store, run logs the error once, and the secrets in the broker do
not change. If a file in a dir:PATH store is empty, open for writing, or otherwise
unusable, run logs the path of the file once, and the broker keeps the old value of the
secret in this file. If run has not been able to use a file since its start, run pushes
the store without the secret in this file. An unusable file does not prevent run from
pushing the changes of all other secrets.

If another directory replaces the directory of a dir:PATH store and secrets are missing in
the new directory, for example after an unmount, the broker keeps the old secrets of the
store until no secret is missing, or until you send the signal SIGUSR1 to run. If a file
system is mounted or unmounted over a bundle, or if another directory replaces the target of
a linked bundle, and fields are missing, the broker keeps the old bundle until no field is
missing, or until you send SIGUSR1 to run.

After keyhatchctl clear, the broker has no secrets until the store changes, or until the
broker or run restarts. To make run push the store even if nothing has changed, send the
signal SIGUSR1 to run. keyhatchctl doctor prints the command.

The broker accepts only one sidecar at a time. If another sidecar is connected to the same
broker, run logs an error, and tries again at each poll until the other sidecar has
stopped. If keyhatchctl push replaces the broker's secrets, run pushes the store again, at
the latest after the interval of --poll.

At its start, run logs a warning if other users can read or change a dir:PATH or file:PATH
store, and an error if every user can change the store. run does not check the permissions
of a store on a read-only mount.

If you use several --store flags, run pushes the secrets of all these stores together. At
its start, run pushes nothing until run can read all stores and no name is in two stores.
If run can no longer read one of the stores, the broker keeps the old secrets of this
store, and run pushes the changes of the other stores. If two stores contain the same name
after the first push, the broker keeps the old value of the secret with this name, and run
pushes the changes of all other secrets.`,
		Example: `  keyhatch-sidecar run --store dir:$HOME/secrets
  keyhatch-sidecar run --store file:.env --store dir:/run/secrets
  keyhatch-sidecar run --store 'exec:sops -d secrets.yaml' --format yaml --watch secrets.yaml`,
	}
	storeFlags, getStore := addStoreFlags(c)
	getSocket := addSocketFlags(c)
	c.Flags().DurationVar(&poll, "poll", 30*time.Second, "interval at which to read the store even if no file event arrived (network file systems send no events)")
	c.Flags().StringVar(&onExit, "on-exit", "keep", "`ACTION` for the broker's secrets when the sidecar exits: keep, or clear if they are from this sidecar's last push")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if onExit != "keep" && onExit != "clear" {
			return cli.UsageErrorf("--on-exit must be keep or clear")
		}
		if poll <= 0 {
			return cli.UsageErrorf("--poll must be greater than 0")
		}
		source, err := getStore()
		if err != nil {
			return err
		}
		socket, tokenFile, err := getSocket()
		if err != nil {
			return err
		}
		// Harden keeps other processes out of the memory of this process, so call it before the
		// process reads a secret.
		if err := secmem.Harden(); err != nil {
			return err
		}
		log, flush := cli.NewDaemonLogger()
		defer flush()
		for _, path := range storePaths(source) {
			access, warning, hint := accessWarning(path)
			switch {
			case access == everyoneCanChange:
				log.Error(warning, "hint", hint)
			case access != noProblem:
				log.Warn(warning, "hint", hint)
			}
		}
		reader := newChildReader(storeFlags, source)
		reader.Warn = func(err error) {
			log.Warn("while the sidecar reads the store, another process of the same user can read the secrets", "error", err,
				"hint", "allow the sidecar to execute a memfd: check the system call filter and vm.memfd_noexec")
		}
		ctx := c.Context()
		// When the terminal of the sidecar is closed, the sidecar must end as after SIGTERM. If a program
		// such as nohup started the sidecar with SIGHUP ignored, the sidecar must continue to run.
		if !signal.Ignored(syscall.SIGHUP) {
			var stop context.CancelFunc
			ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
			defer stop()
		}
		pushNow := make(chan os.Signal, 1)
		signal.Notify(pushNow, syscall.SIGUSR1)
		defer signal.Stop(pushNow)
		config := sidecar.Config{Store: source, Read: reader.Read, Socket: socket, TokenFile: tokenFile, Poll: poll, PushNow: pushNow, ClearOnExit: onExit == "clear", Log: log}
		return config.Run(ctx)
	}
	return c
}
