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

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// These are the paths in the container: of the directory with the project's socket, of the
// socket, and of the command keyhatch.
const (
	containerDir    = "/run/keyhatch"
	containerSocket = containerDir + "/broker.sock"
	containerClient = "/usr/local/bin/keyhatch"
)

// configuredMounts returns the mounts in the project's configuration, for example from the
// keyhatch Feature or from an entry in devcontainer.json. The last element is the mount of the
// workspace, which can be empty or null.
func configuredMounts(ctx context.Context, devcontainer string, environment []string, workspaceFolder string, extraArgs []string) ([]json.RawMessage, error) {
	args := []string{"read-configuration", "--include-merged-configuration", "--workspace-folder", workspaceFolder}
	cmd := exec.CommandContext(ctx, devcontainer, append(args, configurationArgs(extraArgs)...)...)
	cmd.Env = environment
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("devcontainer read-configuration failed: %w:\n%s%s", err, out, stderr.String())
	}
	var configuration struct {
		Merged struct {
			Mounts         []json.RawMessage `json:"mounts"`
			WorkspaceMount json.RawMessage   `json:"workspaceMount"`
		} `json:"mergedConfiguration"`
	}
	if err := json.Unmarshal(out, &configuration); err != nil {
		return nil, errors.New("devcontainer read-configuration printed unexpected output: not the expected JSON")
	}
	return append(configuration.Merged.Mounts, configuration.Merged.WorkspaceMount), nil
}

// hasKeyhatchMount reports whether there is a mount at containerDir. The container engine would
// refuse a second mount there.
func hasKeyhatchMount(mounts []json.RawMessage) bool {
	return slices.ContainsFunc(mounts, func(mount json.RawMessage) bool { return mountTarget(mount) == containerDir })
}

// checkMounts returns an error if a mount would give the container the admin socket or the socket
// of another project. projectDir is the directory of the project's socket, and ids are the IDs of
// the project's dev containers. checkMounts finds mistakes and simple attacks. It cannot find
// every attack, because a devcontainer.json can also contain arguments for the container engine.
func checkMounts(mounts []json.RawMessage, projectDir string, ids []schema.DevcontainerID) error {
	runtimeDir := filepath.Dir(filepath.Dir(projectDir))
	// Compare also with the paths before their links are resolved, because the operator may have
	// no permission to resolve the links in the runtime directory.
	// devcontainer read-configuration does not replace the variable in the mount of the Feature.
	allowed := []string{projectDir, filepath.Join(runtimeDir, "devcontainers", "${devcontainerId}")}
	for _, id := range ids {
		allowed = append(allowed, filepath.Join(runtimeDir, "devcontainers", string(id)))
	}
	for _, mount := range mounts {
		for _, source := range mountSources(mount) {
			real, realRuntimeDir := resolveLinks(source), resolveLinks(runtimeDir)
			if (isBelow(real, realRuntimeDir) || isBelow(realRuntimeDir, real)) && real != resolveLinks(projectDir) && !slices.Contains(allowed, source) {
				return fmt.Errorf("the configuration of the dev container mounts %s, which would give the container access to the admin socket or to another project: remove this mount", cli.PrintableWord(source))
			}
		}
	}
	return nil
}

func isBelow(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// resolveLinks returns the path without symbolic links. If this user cannot resolve the links,
// for example because the path does not exist, resolveLinks returns path unchanged.
func resolveLinks(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	return path
}

// mountSources returns the absolute paths on the host that a mount uses. A volume can have a
// path in its options.
func mountSources(mount json.RawMessage) (sources []string) {
	var object struct{ Source string }
	var text string
	if json.Unmarshal(mount, &object) == nil {
		sources = append(sources, object.Source)
	} else if json.Unmarshal(mount, &text) == nil {
		for _, part := range strings.Split(text, ",") {
			key, value, _ := strings.Cut(strings.Trim(part, `"`), "=")
			switch key {
			case "source", "src":
				sources = append(sources, value)
			case "volume-opt":
				sources = append(sources, strings.TrimPrefix(value, "device="))
			}
		}
	}
	sources = slices.DeleteFunc(sources, func(source string) bool { return !filepath.IsAbs(source) })
	for i, source := range sources {
		sources[i] = filepath.Clean(source)
	}
	return sources
}

// mountTarget returns the path at which a mount in devcontainer.json is mounted, or "" if the
// mount contains no such path. A mount is an object or a string in the format of docker run
// --mount.
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

// configurationArgs returns the arguments in upArgs that select the configuration or the
// container engine. devcontainer up gets upArgs, and devcontainer read-configuration needs these
// arguments, too.
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
