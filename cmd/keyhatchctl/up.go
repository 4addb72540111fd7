package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
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
them. up does not change any file in the project. up passes the arguments after -- to
devcontainer up.

A devcontainer.json can run commands on this machine (initializeCommand), and pass any
arguments to the container engine (runArgs, build). Start a dev container only if you
trust its devcontainer.json. Before up changes a registration or starts the container,
up prints a line that begins with "!" for each mount of a path outside of DIR, and for
each property of devcontainer.json, of the Features, and of the image, except for
properties that act only in the container or in the editor. A property that acts only
there has a line if it contains a value of this machine's environment that has at least
8 bytes. In the lines, up prints ${localEnv:NAME} in place of such values. If the
registration does not change, up prints the lines, but does not ask, even if
devcontainer.json has changed.

up does not start the container if its configuration mounts the admin socket, the
socket of another project, or the directory of the declared projects, or contains a
mount or a volume that up cannot check. This check finds mistakes and simple edits,
but is no sandbox for a hostile devcontainer.json. up does not check the values on the
lines that begin with "!", for example runArgs and Compose files, and does not notice if
devcontainer.json changes after the check.

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
	ctx, log := c.Context(), c.ErrOrStderr() // only devcontainer up writes to standard output
	p, check, err := proposeUp(ctx, o, dir, options)
	if err != nil {
		return err
	}
	projectDir := check.projectDir
	// Untrusted code can replace a symbolic link in the path that the operator typed. Use the
	// directory that is registered.
	command := devcontainerCommand{
		path: devcontainer, folder: dir.path, extraArgs: extraArgs,
		// The Feature mounts a path that begins with ${KEYHATCH_RUNTIME_DIR}.
		environment: append(os.Environ(), "KEYHATCH_RUNTIME_DIR="+check.runtimeDir()),
	}
	configuration, err := command.readChecked(ctx, check)
	if err != nil {
		return err
	}
	p.devcontainerDangers = configuration.dangers
	if p.isUnchanged() {
		fmt.Fprint(log, strings.Join(configuration.dangers, ""))
	} else {
		approval := append(append([]string{"up", "--yes"}, options.flags()...), dir.typed)
		if len(extraArgs) > 0 {
			approval = append(append(approval, "--"), extraArgs...)
		}
		p.approvalCommand = o.command(approval...)
		if err := p.requestApproval(log, log, approvalFlags{yes: yes}); err != nil {
			return err
		}
		// Untrusted code can edit devcontainer.json while the operator reads the changes.
		if again, err := command.readChecked(ctx, check); err != nil {
			return err
		} else if !reflect.DeepEqual(again, configuration) {
			return errors.New("the configuration of the dev container has changed since it was shown: run the command again")
		}
		if err := o.withAdmin(ctx, func(admin *client.Admin) error {
			_, err := p.apply(ctx, admin)
			return err
		}); err != nil {
			return err
		}
		if p.registered == nil {
			fmt.Fprintf(log, "registered %s; to undo the registration: %s\n", p.request.Name, o.command("unregister", string(p.request.Name)))
		}
	}
	args := []string{"devcontainer", "up", "--workspace-folder", dir.path, "--remote-env", "KEYHATCH_SOCKET=" + containerSocket}
	if !configuration.hasKeyhatchMount() {
		args = append(args, "--mount", "type=bind,source="+projectDir+",target="+containerDir)
		if clientPath, err := copyClient(dir.path); err == nil {
			args = append(args, "--mount", "type=bind,source="+clientPath+",target="+containerClient)
		} else {
			fmt.Fprintf(log, "keyhatchctl: cannot mount the keyhatch command into the container: %v\n", err)
		}
	}
	err = syscall.Exec(devcontainer, append(args, extraArgs...), command.environment)
	return fmt.Errorf("cannot run %s: %w", devcontainer, err)
}

// proposeUp returns the proposed registration of the project in dir, and the check for the mounts
// of its dev container.
func proposeUp(ctx context.Context, o *globalOptions, dir projectDir, options registerOptions) (p proposal, check mountCheck, err error) {
	err = o.withAdmin(ctx, func(admin *client.Admin) error {
		if p, err = proposeRegistration(ctx, admin, o, dir, options); err != nil {
			return err
		}
		request := p.request
		request.DryRun = true // a new project has no socket yet, but the broker returns its path
		response, err := admin.Register(ctx, request)
		if err != nil {
			return err
		}
		status, err := admin.Status(ctx)
		ids, _ := devcontainerIDs(dir.path)
		check = mountCheck{folder: dir.path, projectDir: filepath.Dir(response.SocketPath), projectsDir: status.ProjectsDir, ids: ids}
		return err
	})
	return p, check, err
}

// readChecked returns the configuration of the dev container if all its mounts are accepted.
func (d devcontainerCommand) readChecked(ctx context.Context, check mountCheck) (devConfiguration, error) {
	configuration, err := d.readConfiguration(ctx)
	if err != nil {
		return configuration, err
	}
	if err := d.checkVolumes(ctx, configuration.mounts); err != nil {
		return configuration, err
	}
	outside, err := check.checkMounts(configuration.mounts)
	for _, path := range outside {
		configuration.dangers = append(configuration.dangers, fmt.Sprintf("! dev container: mounts %s, which is outside of the project's directory\n", cli.PrintableWord(path)))
	}
	return configuration, err
}
