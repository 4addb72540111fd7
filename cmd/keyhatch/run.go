package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/devcontainer"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// The exit codes of run, which are those of env(1) and of a shell: the
// command's own are left alone.
const (
	exitRunFailed     = 125
	exitNotExecutable = 126
	exitNoCommand     = 127
)

func runCommand(project func() *client.Project) *cobra.Command {
	var only []string
	var wait time.Duration
	c := &cobra.Command{
		Use:   "run [--only A,B] [--wait 15s] -- COMMAND [ARG...]",
		Short: "Run a command with this project's secrets in its environment",
		Long: `run fetches the project's secrets, all of one moment, puts them into environment
variables and becomes the command. Where a secret cannot be had the command is
not run, and every missing one is named.

A variable has the secret's name, or the one that env: gives it in the manifest,
which is looked for from the working directory up. Secrets that the manifest
declares as files are left out, unless --only names them.`,
		Example: `  keyhatch run -- npm ci
  keyhatch run --only GH_TOKEN --wait 15s -- gh pr list`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			err := run(c.Context(), project(), only, wait, args)
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
	c.Flags().StringSliceVar(&only, "only", nil, "only these secrets")
	c.Flags().DurationVar(&wait, "wait", 0, "how long to wait for secrets that are not there yet")
	return c
}

// run does not return where it succeeds.
func run(ctx context.Context, project *client.Project, only []string, wait time.Duration, args []string) error {
	if err := checkWait(wait); err != nil {
		return err
	}
	var names []schema.SecretName
	for _, one := range only {
		name, err := secretName(one)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	// Before anything is fetched, for the sake of a clear error.
	path, err := exec.LookPath(args[0])
	if err != nil {
		code := exitNoCommand
		if errors.Is(err, fs.ErrPermission) {
			code = exitNotExecutable
		}
		return &cli.Failure{Err: err, Code: code}
	}
	started := time.Now()
	if err := sameProtocol(ctx, project, wait); err != nil {
		return err
	}
	info, err := project.Info(ctx)
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	m, err := devcontainer.FindManifest(dir, info.Project)
	if err != nil && !errors.Is(err, devcontainer.ErrNoManifest) {
		return err
	}
	chosen, err := devcontainer.Choose(info.Allowlist, names, m)
	if err != nil {
		return err
	}
	left := max(wait-time.Since(started), 0)
	environment, err := devcontainer.Environment(ctx, project, chosen, os.Environ(), left)
	if err != nil {
		return err
	}
	err = syscall.Exec(path, args, environment)
	return &cli.Failure{Err: &fs.PathError{Op: "running", Path: path, Err: err}, Code: exitNotExecutable}
}
