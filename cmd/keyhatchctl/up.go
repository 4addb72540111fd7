package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

func upCommand(o *globalOptions) *cobra.Command {
	var options registerOptions
	var yes bool
	c := &cobra.Command{
		Use:   "up DIR [-- ARG...]",
		Short: "Start a project's dev container with access to its secrets",
		Long: `up registers the project in DIR, or updates its registration, and then runs
devcontainer up. If the registration would change, up shows the changes. On a
terminal, up asks for your approval before it changes a registration, unless you use
--yes.

Without a terminal, --yes is necessary to register a new project if its manifest has
a dangerous effect, or if the path DIR contains a symbolic link. Without a terminal,
--yes is also necessary if a registered project would change in a way that no flag
requested, for example because its manifest was edited. If an approval is necessary
and you do not approve, up does not start the container.

If the container does not start, the project stays registered.

If the project uses the keyhatch Feature, the Feature mounts the directory of the
project's socket and the keyhatch command into the container. Otherwise, up mounts
them. up does not change any file in the project. If the configuration of the dev
container mounts the admin socket, the socket of another project, or the directory of
the declared projects, up does not start the container. up cannot find every
dangerous configuration. For example, up does not check runArgs, and does not notice
if devcontainer.json changes after the check. up passes the arguments after -- to
devcontainer up.

If the project's container already exists, the container keeps its old mounts. To
recreate the container with new mounts, use: up DIR -- --remove-existing-container`,
		Example: `  keyhatchctl up ~/src/api
  keyhatchctl up ~/src/api --allow-uid 1000 -- --remove-existing-container`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if dash := c.ArgsLenAtDash(); dash > 1 || dash < 0 && len(args) > 1 {
				return cli.UsageErrorf("unexpected argument %q: put arguments of devcontainer up after --", args[1])
			}
			return startDevcontainer(c, o, args[0], options, yes, args[1:])
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "approve without asking")
	c.Flags().StringVar(&options.name, "name", "", "`NAME` of the project (default: the value of project in the manifest)")
	addUIDFlag(c, &options.uids, "also allow this `UID` to use the socket, for example the container's user; can be repeated")
	return c
}

// startDevcontainer registers the project, and then replaces this process with devcontainer up.
// It returns only if an error occurs.
func startDevcontainer(c *cobra.Command, o *globalOptions, dirArg string, options registerOptions, yes bool, extraArgs []string) error {
	dir, err := resolveProjectDir(o, "up", dirArg)
	if err != nil {
		return err
	}
	devcontainer, err := exec.LookPath("devcontainer")
	if err != nil {
		return &cli.Error{Err: err, Hint: "install the Dev Container CLI: npm install -g @devcontainers/cli"}
	}
	ctx, log := c.Context(), c.ErrOrStderr()
	socket, err := ensureRegistered(c, o, dir, options, yes, extraArgs)
	if err != nil {
		return err
	}
	projectDir := filepath.Dir(socket)
	// The Feature mounts a path that begins with ${KEYHATCH_RUNTIME_DIR}.
	environment := append(os.Environ(), "KEYHATCH_RUNTIME_DIR="+filepath.Dir(filepath.Dir(projectDir)))
	// Untrusted code can replace a symbolic link in the path that the operator typed. Use the
	// directory that was registered.
	args := []string{"devcontainer", "up", "--workspace-folder", dir.path, "--remote-env", "KEYHATCH_SOCKET=" + containerSocket}
	mounts, err := configuredMounts(ctx, devcontainer, environment, dir.path, extraArgs)
	if err != nil {
		return err
	}
	ids, _ := devcontainerIDs(dir.path)
	var status schema.StatusResponse
	if err := o.withAdmin(ctx, func(admin *client.Admin) (err error) {
		status, err = admin.Status(ctx)
		return err
	}); err != nil {
		return err
	}
	if err := (mountCheck{folder: dir.path, projectDir: projectDir, projectsDir: status.ProjectsDir, ids: ids}).check(mounts); err != nil {
		return err
	}
	if !hasKeyhatchMount(mounts) {
		args = append(args, "--mount", "type=bind,source="+projectDir+",target="+containerDir)
		if clientPath, err := copyClient(dir.path); err == nil {
			args = append(args, "--mount", "type=bind,source="+clientPath+",target="+containerClient)
		} else {
			fmt.Fprintf(log, "keyhatchctl: cannot mount the keyhatch command into the container: %v\n", err)
		}
	}
	err = syscall.Exec(devcontainer, append(args, extraArgs...), environment)
	return fmt.Errorf("cannot run %s: %w", devcontainer, err)
}

// ensureRegistered registers the project in dir, or updates its registration, after an approval
// if one is necessary. It returns the path of the project's socket.
func ensureRegistered(c *cobra.Command, o *globalOptions, dir projectDir, options registerOptions, yes bool, extraArgs []string) (socket string, err error) {
	var p proposal
	if err := o.withAdmin(c.Context(), func(admin *client.Admin) (err error) {
		p, err = proposeRegistration(c.Context(), admin, o, dir, options)
		return err
	}); err != nil {
		return "", err
	}
	if p.isUnchanged() {
		return p.registered.SocketPath, nil
	}
	approval := append(append([]string{"up", "--yes"}, options.flags()...), dir.typed)
	if len(extraArgs) > 0 {
		approval = append(append(approval, "--"), extraArgs...)
	}
	p.approvalCommand = o.command(approval...)
	log := c.ErrOrStderr() // only devcontainer up writes to standard output
	if err := p.requestApproval(log, log, approvalFlags{yes: yes}); err != nil {
		return "", err
	}
	err = o.withAdmin(c.Context(), func(admin *client.Admin) (err error) {
		socket, err = p.apply(c.Context(), admin)
		return err
	})
	if err == nil && p.registered == nil {
		fmt.Fprintf(log, "registered %s; to undo the registration: %s\n", p.request.Name, o.command("unregister", string(p.request.Name)))
	}
	return socket, err
}
