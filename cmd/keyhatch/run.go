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

// The exit codes for errors of run itself. env(1) and shells use the same codes. If the
// command ran, run returns the command's exit code.
const (
	exitRunFailed       = 125
	exitNotExecutable   = 126
	exitCommandNotFound = 127
)

// restartGracePeriod is the time between SIGTERM and SIGKILL at a restart. Tests change
// it.
var restartGracePeriod = 10 * time.Second

func runCommand(newProject func() *client.Project) *cobra.Command {
	var flags runFlags
	c := &cobra.Command{
		Use:   "run [--only A,B] [--pristine] [--wait 15s] [--watch] -- COMMAND [ARG...]",
		Short: "Run a command with this project's secrets in its environment",
		Long: `Run COMMAND with the project's secrets in its environment. Without --watch,
keyhatch replaces itself with COMMAND.

All secrets come from one snapshot. If a secret is missing, COMMAND does not
start, and keyhatch lists every missing secret.

The variable has the name of the secret, unless the approved manifest declares
another name with env. An edit of the manifest has no effect until the operator
reloads the manifest. run skips a secret that the manifest declares as a file,
unless --only names the secret.

With --pristine, COMMAND gets only these variables of the current environment:
HOME, LANG, LC_ALL, LC_CTYPE, LOGNAME, PATH, SHELL, TERM, TZ, and USER.

With --watch, keyhatch keeps running, forwards signals to COMMAND, and renders
the files that the manifest declares, like keyhatch files. When a secret changes,
keyhatch renders the files again. --on-change selects the effect on COMMAND:

  restart      send SIGTERM to COMMAND and its descendants, send SIGKILL after
               10s, and start COMMAND again with the new secrets
  signal:NAME  send a signal, for example signal:HUP; the environment of COMMAND
               does not change
  none         do not disturb COMMAND

If a secret is missing after a change, COMMAND keeps running with the old secrets.

run returns the exit code of COMMAND. If a signal ended COMMAND, the exit code
is 128 plus the signal's number.`,
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
			// All other errors are errors of run itself.
			failure := &cli.Error{Err: err, ExitCode: exitRunFailed}
			if hinted, ok := errors.AsType[*cli.Error](withHintFor(err, "NAME", "keyhatch run --wait 15s -- COMMAND")); ok {
				failure.Hint = hinted.Hint
			}
			return failure
		},
	}
	// The flags after COMMAND belong to COMMAND.
	c.Flags().SetInterspersed(false)
	flags.register(c)
	c.Flags().BoolVar(&flags.pristine, "pristine", false, "remove all but a few basic variables from the command's environment")
	c.Flags().BoolVar(&flags.watch, "watch", false, "keep running, and update the command when a secret changes")
	c.Flags().StringVar(&flags.onChange, "on-change", "restart", "with --watch, the `ACTION` when a secret changes: restart, signal:NAME, or none")
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
		return cli.UsageErrorf("--on-change %w", err)
	case c.Flags().Changed("on-change") && !flags.watch:
		return cli.UsageErrorf("--on-change requires --watch")
	}
	// Look up the command before the secrets are fetched, so that a typing error is
	// reported first.
	path, err := exec.LookPath(args[0])
	if err != nil {
		code := exitNotExecutable // for example no permission, or a directory
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

// supervise runs the command until it ends. When secrets change, it restarts the command
// or sends it a signal, as its ChangeAction requires.
func supervise(ctx context.Context, p *plan, child devcontainer.Child, environment []string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// From here on, signals go to the command. supervise ends only when the command ends.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	updates, done := make(chan []string), make(chan struct{})
	child.Updates = updates
	current := environment
	go func() { // ends when ctx is canceled below
		defer close(done)
		p.watch(ctx, func(err error) {
			fmt.Fprintf(os.Stderr, "keyhatch: cannot update the secrets, the command keeps the old ones: %v\n", err)
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

// runError returns the error for a command that could not be started.
func runError(path string, err error) error {
	return &cli.Error{Err: &fs.PathError{Op: "running", Path: path, Err: err}, ExitCode: exitNotExecutable}
}
