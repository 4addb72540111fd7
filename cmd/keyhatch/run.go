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

// The exit codes of keyhatch run if the command could not be run. env(1) uses the same codes.
// If the command ran, keyhatch run returns the command's exit code.
const (
	exitRunFailed       = 125
	exitNotExecutable   = 126
	exitCommandNotFound = 127
)

// restartGracePeriod is the time between SIGTERM and SIGKILL when keyhatch run --watch ends
// the processes of the command, for example for a restart. Tests change this value.
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

Each variable has the name of its secret, unless the approved manifest declares
another name with env. An edit of the manifest has no effect until the operator
reloads the manifest. A secret that the manifest declares as a file gets no
variable.

With --pristine, COMMAND gets the secrets and only these variables of the current
environment: HOME, LANG, LC_ALL, LC_CTYPE, LOGNAME, PATH, SHELL, TERM, TZ, and USER.

With --watch, keyhatch keeps running and forwards signals to COMMAND. With --watch,
keyhatch also renders the files that the manifest declares, like keyhatch files
--watch. The flag --on-change selects the effect of a changed secret on COMMAND:

  restart      send SIGTERM to COMMAND and its descendants, send SIGKILL to the
               remaining processes after 10s, and start COMMAND again with the
               new secrets; if a process does not end within 10s after SIGKILL,
               report the process and do not wait for it; if the secrets
               change often, delay restarts to one per 10s
  signal:NAME  send a signal to COMMAND, for example signal:HUP; the environment
               of COMMAND does not change
  none         do not restart COMMAND and do not send a signal

If a secret is missing after a change, COMMAND keeps running with the old secrets.

With --watch, if a signal ends COMMAND, or if COMMAND ends after keyhatch received
SIGTERM, keyhatch also ends the descendants of COMMAND that are still running, and
restores the original settings of the terminal. Before each restart of COMMAND,
keyhatch also restores the original settings of the terminal. If standard input or
standard output is not a terminal, keyhatch does not restore the settings of the
terminal.

In a terminal, the keys Ctrl-C, Ctrl-\, and Ctrl-Z send their signals directly to
COMMAND. While keyhatch is in the foreground of a terminal, keyhatch does not
forward SIGINT, SIGQUIT, and SIGWINCH, because COMMAND gets these signals from the
terminal. To end COMMAND from another program, send SIGTERM to keyhatch.

run returns the exit code of COMMAND. If a signal ended COMMAND, the exit code is
128 plus the signal's number. If the exit code is 130, run --watch ends itself with
SIGINT, so that Ctrl-C also ends a script.`,
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
			// All other errors are errors of keyhatch run itself, so their exit code is 125.
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
	c.Flags().BoolVar(&flags.pristine, "pristine", false, "start the command with the secrets and only a few variables of the current environment")
	c.Flags().BoolVar(&flags.watch, "watch", false, "keep running; when a secret changes, render the files again and apply --on-change to the command")
	c.Flags().StringVar(&flags.onChange, "on-change", "restart", "with --watch, the `ACTION` for the command when a secret changes: restart, signal:NAME, or none")
	return c
}

type runFlags struct {
	fetchFlags
	pristine, watch bool
	onChange        string
}

// run replaces this process with the command. With --watch, run starts the command as a child
// process and supervises it.
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
	// Look up the command before the secrets are fetched, so that a mistyped command is the
	// first error that is reported.
	path, err := exec.LookPath(args[0])
	if err != nil {
		code := exitNotExecutable // for example, the file has no execute permission or is a directory
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
		return supervise(ctx, p, devcontainer.Child{
			Path: path, Args: args, OnChange: onChange, GracePeriod: restartGracePeriod,
			Report: func(message string) { fmt.Fprintf(os.Stderr, "keyhatch: %s\n", message) },
		}, environment)
	}
	return runError(path, syscall.Exec(path, args, environment))
}

// supervise runs the command until the command ends. When secrets change, supervise restarts
// the command, sends a signal to the command, or does nothing, as child.OnChange requires.
func supervise(ctx context.Context, p *plan, child devcontainer.Child, environment []string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// From here on, a signal must not cancel ctx, because child.Run forwards signals to the
	// command. supervise returns only after the command has ended.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	updates, done := make(chan []string), make(chan struct{})
	child.Updates = updates
	current := environment
	go func() { // this goroutine ends when ctx is canceled, or earlier if p.watch returns an error
		defer close(done)
		onError := func(err error, filesChanged bool) {
			failure := "cannot update the secrets, so the command keeps the old secrets"
			if filesChanged {
				failure = "cannot complete the update: some files have already changed, but the command keeps the old environment"
			}
			fmt.Fprintf(os.Stderr, "keyhatch: %s: %v\n", failure, err)
		}
		err := p.watch(ctx, onError, func(updated []string, filesChanged bool) {
			if slices.Equal(updated, current) && !filesChanged {
				return
			}
			current = updated
			select {
			case updates <- updated:
			case <-ctx.Done():
			}
		})
		if ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "keyhatch: the watch has ended, so the secrets are no longer updated: %v\n", err)
		}
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
