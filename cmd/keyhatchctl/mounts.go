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

// Where a container has the project's directory, and the client.
const (
	containerDir    = "/run/keyhatch"
	containerSocket = containerDir + "/broker.sock"
	containerClient = "/usr/local/bin/keyhatch"
)

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
