package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func upCommand(o *operator) *cobra.Command {
	var uids []uint
	c := &cobra.Command{
		Use:   "up DIR [-- ARG...]",
		Short: "Start a project's dev container with its secrets in reach",
		Long: `up registers the project if it is not registered yet, and becomes devcontainer up
with the project's directory and the keyhatch command mounted into the
container. Nothing is edited in the project. Where it has the keyhatch Feature,
that mounts both. What follows -- is for devcontainer up.

A container that is there already keeps the mounts that it was made with: after
-- say --remove-existing-container to make it anew.`,
		Example: `  keyhatchctl up ~/src/api
  keyhatchctl up ~/src/api --allow-uid 1000 -- --remove-existing-container`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if dash := c.ArgsLenAtDash(); dash > 1 || dash < 0 && len(args) > 1 {
				return cli.Usage("one directory, and what devcontainer is to have behind --")
			}
			return up(c.Context(), o, c.ErrOrStderr(), args[0], uids, args[1:])
		},
	}
	c.Flags().UintSliceVar(&uids, "allow-uid", nil, "a uid that may use the socket too, such as the container's user")
	return c
}

// up does not return where it succeeds.
func up(ctx context.Context, o *operator, log io.Writer, arg string, uids []uint, extra []string) error {
	devcontainer, err := exec.LookPath("devcontainer")
	if err != nil {
		return &cli.Failure{Err: err, Hint: "install the Dev Container CLI: npm install -g @devcontainers/cli"}
	}
	request, err := registration(arg, uids)
	if err != nil {
		return err
	}
	var socket string
	if err := o.with(ctx, func(admin *client.Admin) error {
		socket, err = registered(ctx, admin, log, request, len(uids) > 0)
		return err
	}); err != nil {
		return err
	}
	folder, err := filepath.Abs(arg)
	if err != nil {
		return err
	}
	projectDir := filepath.Dir(socket)
	// The Feature's mount is below it.
	environment := append(os.Environ(), "KEYHATCH_RUNTIME_DIR="+filepath.Dir(filepath.Dir(projectDir)))
	args := []string{"devcontainer", "up", "--workspace-folder", folder, "--remote-env", "KEYHATCH_SOCKET=" + containerSocket}
	mounted, err := mountsItself(ctx, devcontainer, environment, folder, extra)
	if err != nil {
		return err
	}
	if !mounted {
		args = append(args, "--mount", "type=bind,source="+projectDir+",target="+containerDir)
		if own, err := clientFor(request.Name); err == nil {
			args = append(args, "--mount", "type=bind,source="+own+",target="+containerClient)
		} else {
			fmt.Fprintf(log, "keyhatchctl: the container gets the socket and no keyhatch command: %v\n", err)
		}
	}
	err = syscall.Exec(devcontainer, append(args, extra...), environment)
	return fmt.Errorf("running %s: %w", devcontainer, err)
}

// registered returns the project's socket, and registers it where it is not.
// A registration that is there is left as it is, but what it lacks is said.
func registered(ctx context.Context, admin *client.Admin, log io.Writer, request schema.RegisterRequest, moreUIDs bool) (socket string, err error) {
	status, err := admin.Status(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(status.Projects, func(p schema.ProjectStatus) bool { return p.ProjectPath == request.ProjectPath })
	if i < 0 {
		answer, err := admin.Register(ctx, request)
		return answer.SocketPath, err
	}
	p := status.Projects[i]
	if moreUIDs {
		return "", &cli.Failure{Err: fmt.Errorf("%s is registered already, and --allow-uid is settled then", p.Name),
			Hint: "keyhatchctl unregister " + string(p.Name) + ", then up again; its containers go on as they are"}
	}
	if state := drift(p); state != "approved" {
		fmt.Fprintf(log, "keyhatchctl: %s: the manifest is %s; what was approved is served\nhint: keyhatchctl reload %s\n", p.Name, state, p.Name)
	}
	return p.SocketPath, nil
}
