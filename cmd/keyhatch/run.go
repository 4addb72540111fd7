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
	exitRunFailed     = 125
	exitNotExecutable = 126
	exitNoCommand     = 127
)

// restartGrace is how long a command that is to be restarted has to end.
var restartGrace = 10 * time.Second

func runCommand(project func() *client.Project) *cobra.Command {
	var o runOptions
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
			err := run(c, project(), o, args)
			if _, exited := errors.AsType[cli.Exit](err); exited {
				return err
			}
			if failed, ok := errors.AsType[*cli.Failure](err); ok && (failed.Code == cli.ExitUsage || failed.Code == exitNotExecutable || failed.Code == exitNoCommand) {
				return err
			}
			// Whatever else went wrong is run's own failure.
			failed := &cli.Failure{Err: err, Code: exitRunFailed}
			if reason, ok := errors.AsType[*cli.Failure](failure(err)); ok {
				failed.Hint = reason.Hint
			}
			return failed
		},
	}
	// What follows the command's name belongs to the command.
	c.Flags().SetInterspersed(false)
	o.flags(c)
	c.Flags().BoolVar(&o.pristine, "pristine", false, "pass on only a few plain variables of this environment")
	c.Flags().BoolVar(&o.watch, "watch", false, "stay, and act when a secret changes")
	c.Flags().StringVar(&o.onChange, "on-change", "restart", "with --watch: restart, signal:NAME or none")
	return c
}

type runOptions struct {
	choice
	pristine, watch bool
	onChange        string
}

// run does not return where it becomes the command.
func run(c *cobra.Command, project *client.Project, o runOptions, args []string) error {
	ctx := c.Context()
	only, err := o.check(c)
	if err != nil {
		return err
	}
	onChange, err := devcontainer.ParseChangeAction(o.onChange)
	switch {
	case err != nil:
		return cli.Usage("--on-change: %w", err)
	case c.Flags().Changed("on-change") && !o.watch:
		return cli.Usage("--on-change goes with --watch")
	}
	// Before anything is fetched, for the sake of a clear error.
	path, err := exec.LookPath(args[0])
	if err != nil {
		code := exitNotExecutable // no permission, a directory
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			code = exitNoCommand
		}
		return &cli.Failure{Err: err, Code: code}
	}
	base := os.Environ()
	if o.pristine {
		base = devcontainer.PristineEnvironment(base)
	}
	p, err := newPlan(ctx, project, planOptions{only: only, wait: o.wait, variables: true, base: base, files: o.watch})
	if err != nil {
		return err
	}
	environment, _, err := p.fetch(ctx, p.left)
	if err != nil {
		return err
	}
	if o.watch {
		return keep(ctx, p, devcontainer.Child{Path: path, Args: args, OnChange: onChange, GracePeriod: restartGrace}, environment)
	}
	return cannotRun(path, syscall.Exec(path, args, environment))
}

// keep runs the command to its end and follows changes meanwhile.
func keep(ctx context.Context, p *plan, child devcontainer.Child, environment []string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// From here on a signal is the command's, and its end is ours.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	changes, done := make(chan []string), make(chan struct{})
	child.Updates = changes
	last := environment
	go func() { // ended below
		defer close(done)
		p.follow(ctx, func(err error) {
			fmt.Fprintf(os.Stderr, "keyhatch: the command goes on with the secrets it has: %v\n", err)
		}, func(now []string, rendered bool) {
			if slices.Equal(now, last) && !rendered {
				return
			}
			last = now
			select {
			case changes <- now:
			case <-ctx.Done():
			}
		})
	}()
	exit, err := child.Run(environment)
	cancel()
	<-done
	if err != nil {
		return cannotRun(child.Path, err)
	}
	return cli.Exit(exit)
}

func cannotRun(path string, err error) error {
	return &cli.Failure{Err: &fs.PathError{Op: "running", Path: path, Err: err}, Code: exitNotExecutable}
}
