package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// The container paths of the mounted socket directory, of the socket, and of keyhatch.
const (
	containerDir    = "/run/keyhatch"
	containerSocket = containerDir + "/broker.sock"
	containerClient = "/usr/local/bin/keyhatch"
)

// hasKeyhatchMount reports whether the project's configuration has a mount at
// containerDir, either from the keyhatch Feature or from an entry in
// devcontainer.json. The container engine would refuse a second mount there.
func hasKeyhatchMount(ctx context.Context, devcontainer string, environment []string, workspaceFolder string, extraArgs []string) (bool, error) {
	args := []string{"read-configuration", "--include-merged-configuration", "--workspace-folder", workspaceFolder}
	cmd := exec.CommandContext(ctx, devcontainer, append(args, configurationArgs(extraArgs)...)...)
	cmd.Env = environment
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return false, fmt.Errorf("devcontainer read-configuration failed: %w:\n%s%s", err, out, stderr.String())
	}
	var configuration struct {
		Merged struct {
			Mounts []json.RawMessage `json:"mounts"`
		} `json:"mergedConfiguration"`
	}
	if err := json.Unmarshal(out, &configuration); err != nil {
		return false, errors.New("devcontainer read-configuration printed unexpected output: not the expected JSON")
	}
	return slices.ContainsFunc(configuration.Merged.Mounts, func(mount json.RawMessage) bool {
		return mountTarget(mount) == containerDir
	}), nil
}

// mountTarget returns the target of a mount in devcontainer.json. A mount is an object
// or a string in the format of docker run --mount.
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

// configurationArgs returns the arguments of devcontainer up that select the
// configuration or the container engine. read-configuration needs the same arguments.
func configurationArgs(upArgs []string) (args []string) {
	for i, arg := range upArgs {
		name, _, hasValue := strings.Cut(arg, "=")
		switch name {
		case "--config", "--override-config", "--docker-path", "--docker-compose-path":
			args = append(args, arg)
			if !hasValue && i+1 < len(upArgs) {
				args = append(args, upArgs[i+1])
			}
		}
	}
	return args
}
