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
		Short: "Start a project's dev container with access to its secrets",
		Long: `up registers the project if it is not registered, and then runs devcontainer up.
If the project uses the keyhatch Feature, the Feature mounts the directory of the
project's socket and the keyhatch command into the container. Otherwise, up mounts
them. up does not change any file in the project. Arguments after -- are passed to
devcontainer up.

An existing container keeps its old mounts. To recreate it, add
-- --remove-existing-container.`,
		Example: `  keyhatchctl up ~/src/api
  keyhatchctl up ~/src/api --allow-uid 1000 -- --remove-existing-container`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if dash := c.ArgsLenAtDash(); dash > 1 || dash < 0 && len(args) > 1 {
				return cli.UsageErrorf("unexpected argument %q: put arguments of devcontainer up after --", args[1])
			}
			return startDevcontainer(c.Context(), o, c.ErrOrStderr(), args[0], uids, args[1:])
		},
	}
	addUIDFlag(c, &uids, "additional `UID` that can use the socket, for example the container's user; can be repeated")
	return c
}

// startDevcontainer replaces this process with devcontainer up. It returns only if an
// error occurs.
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
	// The Feature's mount uses a path in this directory.
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
			fmt.Fprintf(log, "keyhatchctl: cannot mount the keyhatch command into the container: %v\n", err)
		}
	}
	err = syscall.Exec(devcontainer, append(args, extraArgs...), environment)
	return fmt.Errorf("cannot run %s: %w", devcontainer, err)
}

// ensureRegistered returns the project's socket. It registers the project if it is not
// registered. It does not change an existing registration, but it prints a note if the
// manifest differs from the approved manifest.
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
		return "", &cli.Error{Err: fmt.Errorf("%s is already registered: --allow-uid can be set only when a project is registered", p.Name),
			Hint: "run keyhatchctl unregister " + string(p.Name) + ", then run up again; running containers keep their mounts"}
	}
	if state := manifestState(p); state != "approved" {
		fmt.Fprintf(log, "keyhatchctl: %s: the manifest %s; the approved manifest is still in effect\nhint: run keyhatchctl reload %s to approve the change\n", p.Name, manifestStateText(state), p.Name)
	}
	return p.SocketPath, nil
}
