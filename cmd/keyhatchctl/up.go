package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"github.com/spf13/cobra"
)

// Where a container has the project's directory, and the client.
const (
	containerDir    = "/run/keyhatch"
	containerSocket = containerDir + "/broker.sock"
	containerClient = "/usr/local/bin/keyhatch"
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
			return o.up(c.Context(), c.ErrOrStderr(), args[0], uids, args[1:])
		},
	}
	c.Flags().UintSliceVar(&uids, "allow-uid", nil, "a uid that may use the socket too, such as the container's user")
	return c
}

// up does not return where it succeeds.
func (o *operator) up(ctx context.Context, log io.Writer, arg string, uids []uint, extra []string) error {
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

// mountsItself asks the Dev Container CLI whether the project has a mount at
// containerDir of its own, from the keyhatch Feature or written out. A second
// one there would be an error of the engine's.
func mountsItself(ctx context.Context, devcontainer string, environment []string, folder string, extra []string) (bool, error) {
	args := []string{"read-configuration", "--include-merged-configuration", "--workspace-folder", folder}
	cmd := exec.CommandContext(ctx, devcontainer, append(args, shared(extra)...)...)
	cmd.Env = environment
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return false, fmt.Errorf("devcontainer read-configuration: %w: %s", err, strings.TrimSpace(said.String()))
	}
	var configuration struct {
		Merged struct {
			Mounts []json.RawMessage `json:"mounts"`
		} `json:"mergedConfiguration"`
	}
	if err := json.Unmarshal(out, &configuration); err != nil {
		return false, errors.New("devcontainer read-configuration: its answer is not the JSON that was expected")
	}
	return slices.ContainsFunc(configuration.Merged.Mounts, func(mount json.RawMessage) bool {
		return mountTarget(mount) == containerDir
	}), nil
}

// mountTarget reads a mount as devcontainer.json has it, an object or the text
// of docker's --mount.
func mountTarget(mount json.RawMessage) string {
	var object struct{ Target string }
	if json.Unmarshal(mount, &object) == nil {
		return filepath.Clean(object.Target)
	}
	var text string
	if json.Unmarshal(mount, &text) != nil {
		return ""
	}
	for _, part := range strings.Split(text, ",") {
		key, value, _ := strings.Cut(part, "=")
		if key == "target" || key == "dst" || key == "destination" {
			return filepath.Clean(value)
		}
	}
	return ""
}

// shared are those of devcontainer up's arguments that read-configuration takes
// too, and that say which configuration and which engine is meant.
func shared(extra []string) (both []string) {
	for i, arg := range extra {
		name, _, joined := strings.Cut(arg, "=")
		switch name {
		case "--config", "--override-config", "--docker-path", "--docker-compose-path":
			both = append(both, arg)
			if !joined && i+1 < len(extra) {
				both = append(both, extra[i+1])
			}
		}
	}
	return both
}

// clientFor makes a copy of the keyhatch command for one project's container.
// The container's root may write to what is mounted there, and must not reach
// the command that this machine, or another project, runs.
func clientFor(name schema.ProjectName) (string, error) {
	from, err := os.Executable()
	if err != nil {
		return "", err
	}
	from = filepath.Join(filepath.Dir(from), "keyhatch")
	if _, err := os.Stat(from); err != nil {
		if from, err = exec.LookPath("keyhatch"); err != nil {
			return "", err
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "keyhatch", "clients", string(name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	// By rename: a running container keeps the one that it has.
	made, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return "", err
	}
	defer os.Remove(made.Name())
	defer made.Close()
	if _, err := made.Write(text); err != nil {
		return "", err
	}
	if err := made.Chmod(0o755); err != nil {
		return "", err
	}
	if err := made.Close(); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "keyhatch")
	return path, os.Rename(made.Name(), path)
}
