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

// These are paths in the container: the directory with the project's socket, the socket, and the
// command keyhatch.
const (
	containerDir    = "/run/keyhatch"
	containerSocket = containerDir + "/broker.sock"
	containerClient = "/usr/local/bin/keyhatch"
)

// configuredMounts returns the mounts in the project's configuration, for example from the
// keyhatch Feature or from an entry in devcontainer.json. The last element is the value of
// workspaceMount, or empty if the configuration does not contain workspaceMount.
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
		return nil, errors.New("devcontainer read-configuration did not print the expected JSON")
	}
	return append(configuration.Merged.Mounts, configuration.Merged.WorkspaceMount), nil
}

// hasKeyhatchMount reports whether there is a mount at containerDir. The container engine would
// refuse a second mount there.
func hasKeyhatchMount(mounts []json.RawMessage) bool {
	return slices.ContainsFunc(mounts, func(mount json.RawMessage) bool {
		m, err := parseMount(mount)
		return err == nil && m.target() == containerDir
	})
}

// A mountCheck finds mounts that would give the container of a project access to the admin socket,
// to another project, or to the declared projects. It finds mistakes and simple attacks. It cannot
// find every attack, because a devcontainer.json can also contain arguments for the container
// engine.
type mountCheck struct {
	folder      string // the project's directory
	projectDir  string // the directory of the project's socket
	projectsDir string // the directory of the declared projects, or ""
	ids         []schema.DevcontainerID
}

func (c mountCheck) check(mounts []json.RawMessage) error {
	runtimeDir := filepath.Dir(filepath.Dir(c.projectDir))
	// These paths are allowed even if the operator has no permission to resolve the links in the
	// runtime directory. devcontainer read-configuration does not replace ${devcontainerId} in
	// the mount of the Feature.
	allowed := []string{c.projectDir, filepath.Join(runtimeDir, "devcontainers", "${devcontainerId}")}
	for _, id := range c.ids {
		allowed = append(allowed, filepath.Join(runtimeDir, "devcontainers", string(id)))
	}
	for _, raw := range mounts {
		m, err := parseMount(raw)
		if err != nil {
			return fmt.Errorf("cannot check the mount %s in the configuration of the dev container: %w", cli.PrintableWord(string(raw)), err)
		}
		for _, source := range m.sources(c.folder) {
			switch {
			case c.projectsDir != "" && overlaps(source, c.projectsDir):
				return fmt.Errorf("the configuration of the dev container mounts %s, which would give the container access to the declared projects: remove this mount", cli.PrintableWord(source))
			case !overlaps(source, runtimeDir):
			case resolveLinks(source) != resolveLinks(c.projectDir) && !slices.Contains(allowed, source):
				return fmt.Errorf("the configuration of the dev container mounts %s, which would give the container access to the admin socket or to another project: remove this mount", cli.PrintableWord(source))
			case !m.isPlain():
				return fmt.Errorf("the configuration of the dev container mounts %s with unknown or repeated options: use only type, source, and target", cli.PrintableWord(source))
			}
		}
	}
	return nil
}

// overlaps reports whether path and dir are equal or one of them is below the other, after their
// symbolic links are resolved. It also returns true if path is dir or below dir with unresolved
// links, because this user may have no permission to resolve them.
func overlaps(path, dir string) bool {
	real, realDir := resolveLinks(path), resolveLinks(dir)
	return isBelow(real, realDir) || isBelow(realDir, real) || isBelow(path, dir)
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
