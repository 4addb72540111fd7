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
	"github.com/keyhatch/keyhatch/manifest"
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
	var o runOptions
	c := &cobra.Command{
		Use:   "run [--only A,B] [--wait 15s] [--manifest FILE] -- COMMAND [ARG...]",
		Short: "Run a command with this project's secrets in its environment",
		Long: `run fetches the project's secrets, all of one moment, puts them into environment
variables and becomes the command. Where a secret cannot be had the command is
not run, and every missing one is named.

A variable has the secret's name, or the one that env: gives it in the manifest,
which is looked for from the working directory up, or is --manifest. It only
names variables: what may be fetched is decided by the manifest that the broker
was given. Secrets that are declared as files are left out, unless --only names
them.`,
		Example: `  keyhatch run -- npm ci
  keyhatch run --only GH_TOKEN --wait 15s -- gh pr list`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("only") && len(o.only) == 0 {
				// An empty variable in a script must not come to mean everything.
				return cli.Usage("--only names no secret: leave it out to have all")
			}
			err := run(c.Context(), project(), o, args)
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
	c.Flags().StringSliceVar(&o.only, "only", nil, "only these secrets")
	c.Flags().DurationVar(&o.wait, "wait", 0, "how long to wait for secrets that are not there yet")
	c.Flags().StringVar(&o.manifest, "manifest", "", "the manifest that names the variables (default: from the working directory up)")
	return c
}

type runOptions struct {
	only     []string
	wait     time.Duration
	manifest string // file; "" looks for it
}

// run does not return where it succeeds.
func run(ctx context.Context, project *client.Project, o runOptions, args []string) error {
	if err := checkWait(o.wait); err != nil {
		return err
	}
	var names []schema.SecretName
	for _, one := range o.only {
		name, err := secretName(one)
		if err != nil {
			return err
		}
		names = append(names, name)
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
	started := time.Now()
	if err := sameProtocol(ctx, project, o.wait); err != nil {
		return err
	}
	info, err := project.Info(ctx)
	if err != nil {
		return err
	}
	m, err := naming(o.manifest, info.Project)
	if err != nil {
		return err
	}
	chosen, err := devcontainer.Choose(info.Allowlist, names, m)
	if err != nil {
		return err
	}
	left := max(o.wait-time.Since(started), 0)
	environment, err := devcontainer.Environment(ctx, project, chosen, os.Environ(), left)
	if err != nil {
		return err
	}
	err = syscall.Exec(path, args, environment)
	return &cli.Failure{Err: &fs.PathError{Op: "running", Path: path, Err: err}, Code: exitNotExecutable}
}

// naming returns the manifest that names the variables, or nil where there is
// none and the secrets' own names do.
func naming(file string, project schema.ProjectName) (*manifest.Manifest, error) {
	if file != "" {
		return devcontainer.ReadManifest(file, project)
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	m, err := devcontainer.FindManifest(dir, project)
	if errors.Is(err, devcontainer.ErrNoManifest) {
		return nil, nil
	}
	return m, err
}
