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

func upCommand(o *globalOptions) *cobra.Command {
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
				return cli.UsageErrorf("one directory, and what devcontainer is to have behind --")
			}
			return startDevcontainer(c.Context(), o, c.ErrOrStderr(), args[0], uids, args[1:])
		},
	}
	c.Flags().UintSliceVar(&uids, "allow-uid", nil, "a uid that may use the socket too, such as the container's user")
	return c
}

// startDevcontainer replaces this process with devcontainer up. It returns only if
// that fails.
func startDevcontainer(ctx context.Context, o *globalOptions, log io.Writer, dirArg string, uids []uint, extraArgs []string) error {
	devcontainer, err := exec.LookPath("devcontainer")
	if err != nil {
		return &cli.Error{Err: err, Hint: "install the Dev Container CLI: npm install -g @devcontainers/cli"}
	}
	request, err := newRegisterRequest(dirArg, uids)
	if err != nil {
		return err
	}
	var socket string
	if err := o.withAdmin(ctx, func(admin *client.Admin) error {
		socket, err = ensureRegistered(ctx, admin, log, request, len(uids) > 0)
		return err
	}); err != nil {
		return err
	}
	workspaceFolder, err := filepath.Abs(dirArg)
	if err != nil {
		return err
	}
	projectDir := filepath.Dir(socket)
	// The Feature's mount is below it.
	environment := append(os.Environ(), "KEYHATCH_RUNTIME_DIR="+filepath.Dir(filepath.Dir(projectDir)))
	args := []string{"devcontainer", "up", "--workspace-folder", workspaceFolder, "--remote-env", "KEYHATCH_SOCKET=" + containerSocket}
	hasMount, err := hasKeyhatchMount(ctx, devcontainer, environment, workspaceFolder, extraArgs)
	if err != nil {
		return err
	}
	if !hasMount {
		args = append(args, "--mount", "type=bind,source="+projectDir+",target="+containerDir)
		if clientPath, err := copyClient(request.Name); err == nil {
			args = append(args, "--mount", "type=bind,source="+clientPath+",target="+containerClient)
		} else {
			fmt.Fprintf(log, "keyhatchctl: the container gets the socket and no keyhatch command: %v\n", err)
		}
	}
	err = syscall.Exec(devcontainer, append(args, extraArgs...), environment)
	return fmt.Errorf("running %s: %w", devcontainer, err)
}

// ensureRegistered returns the project's socket. It registers the project if it is
// not registered yet. It does not change a registration that exists, but it reports
// a manifest that differs from the approved one.
func ensureRegistered(ctx context.Context, admin *client.Admin, log io.Writer, request schema.RegisterRequest, uidsGiven bool) (socket string, err error) {
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
	if uidsGiven {
		return "", &cli.Error{Err: fmt.Errorf("%s is registered already, and --allow-uid is settled then", p.Name),
			Hint: "keyhatchctl unregister " + string(p.Name) + ", then up again; its containers go on as they are"}
	}
	if state := manifestState(p); state != "approved" {
		fmt.Fprintf(log, "keyhatchctl: %s: the manifest is %s; what was approved is served\nhint: keyhatchctl reload %s\n", p.Name, state, p.Name)
	}
	return p.SocketPath, nil
}
