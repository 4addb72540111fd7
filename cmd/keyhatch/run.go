package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/spf13/cobra"
)

// The exit codes of run, which are those of env(1) and of a shell: the
// command's own are left alone.
const (
	exitRunFailed       = 125
	exitNotExecutable   = 126
	exitCommandNotFound = 127
)

// restartGracePeriod is the time between SIGTERM and SIGKILL at a restart. Tests set
// another one.
var restartGracePeriod = 10 * time.Second

func runCommand(newProject func() *client.Project) *cobra.Command {
	var flags runFlags
	c := &cobra.Command{
		Use:   "run [--only A,B] [--pristine] [--wait 15s] [--watch] -- COMMAND [ARG...]",
		Short: "Run a command with this project's secrets in its environment",
		Long: `run fetches the project's secrets, all of one moment, puts them into environment
variables and becomes the command. Where a secret cannot be had the command is
not run, and every missing one is named.

A variable has the secret's name, or the one that env: gives it in the manifest
that was approved: an edit in the tree changes nothing until it is reloaded.
Secrets that are declared as files are left out, unless --only names them.

--pristine passes on nothing of this environment but HOME, LANG, LC_ALL,
LC_CTYPE, LOGNAME, PATH, SHELL, TERM, TZ and USER.

--watch stays, passes signals on, and renders the files that the manifest
declares, as keyhatch files does. When a secret changes the files are rendered
again, and --on-change says what becomes of the command: it is restarted
(SIGTERM to it and all it started, SIGKILL after 10s, and it begins anew with
the new secrets), it gets a signal (signal:HUP), or none. While the new secrets
cannot all be had it goes on with those it has. run exits as the command does,
with 128 and the number for a signal.`,
		Example: `  keyhatch run -- npm ci
  keyhatch run --only GH_TOKEN --wait 15s -- gh pr list
  keyhatch run --watch -- npm run dev
  keyhatch run --watch --on-change signal:HUP -- nginx -g 'daemon off;'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			err := run(c, newProject(), flags, args)
			if _, exited := errors.AsType[cli.ExitStatus](err); exited {
				return err
			}
			if failure, ok := errors.AsType[*cli.Error](err); ok && (failure.ExitCode == cli.ExitUsage || failure.ExitCode == exitNotExecutable || failure.ExitCode == exitCommandNotFound) {
				return err
			}
			// Whatever else went wrong is run's own failure.
			failure := &cli.Error{Err: err, ExitCode: exitRunFailed}
			if hinted, ok := errors.AsType[*cli.Error](withHint(err)); ok {
				failure.Hint = hinted.Hint
			}
			return failure
		},
	}
	// What follows the command's name belongs to the command.
	c.Flags().SetInterspersed(false)
	flags.register(c)
	c.Flags().BoolVar(&flags.pristine, "pristine", false, "pass on only a few plain variables of this environment")
	c.Flags().BoolVar(&flags.watch, "watch", false, "stay, and act when a secret changes")
	c.Flags().StringVar(&flags.onChange, "on-change", "restart", "with --watch: restart, signal:NAME or none")
	return c
}

type runFlags struct {
	fetchFlags
	pristine, watch bool
	onChange        string
}

// run replaces this process with the command, or supervises it with --watch.
func run(c *cobra.Command, project *client.Project, flags runFlags, args []string) error {
	ctx := c.Context()
	only, err := flags.parse(c)
	if err != nil {
		return err
	}
	onChange, err := devcontainer.ParseChangeAction(flags.onChange)
	switch {
	case err != nil:
		return cli.UsageErrorf("--on-change: %w", err)
	case c.Flags().Changed("on-change") && !flags.watch:
		return cli.UsageErrorf("--on-change goes with --watch")
	}
	// Before anything is fetched, for the sake of a clear error.
	path, err := exec.LookPath(args[0])
	if err != nil {
		code := exitNotExecutable // no permission, a directory
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			code = exitCommandNotFound
		}
		return &cli.Error{Err: err, ExitCode: code}
	}
	base := os.Environ()
	if flags.pristine {
		base = devcontainer.PristineEnvironment(base)
	}
	p, err := newPlan(ctx, project, planOptions{only: only, wait: flags.wait, withVariables: true, baseEnvironment: base, withFiles: flags.watch})
	if err != nil {
		return err
	}
	environment, _, err := p.fetchAndRender(ctx, p.remainingWait)
	if err != nil {
		return err
	}
	if flags.watch {
		return supervise(ctx, p, devcontainer.Child{Path: path, Args: args, OnChange: onChange, GracePeriod: restartGracePeriod}, environment)
	}
	return runError(path, syscall.Exec(path, args, environment))
}

// supervise runs the command until it ends, and updates it when secrets change.
func supervise(ctx context.Context, p *plan, child devcontainer.Child, environment []string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// From here on a signal is the command's, and its end is ours.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	updates, done := make(chan []string), make(chan struct{})
	child.Updates = updates
	current := environment
	go func() { // ended below
		defer close(done)
		p.watch(ctx, func(err error) {
			fmt.Fprintf(os.Stderr, "keyhatch: the command goes on with the secrets it has: %v\n", err)
		}, func(updated []string, filesChanged bool) {
			if slices.Equal(updated, current) && !filesChanged {
				return
			}
			current = updated
			select {
			case updates <- updated:
			case <-ctx.Done():
			}
		})
	}()
	exitCode, err := child.Run(environment)
	cancel()
	<-done
	if err != nil {
		return runError(child.Path, err)
	}
	return cli.ExitStatus(exitCode)
}

// runError is the failure of a command that could not be started.
func runError(path string, err error) error {
	return &cli.Error{Err: &fs.PathError{Op: "running", Path: path, Err: err}, ExitCode: exitNotExecutable}
}
