package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
)

// A volume is the part of the engine's output about a volume that checkVolumes needs.
type volume struct {
	Driver  string
	Options map[string]string
}

// checkVolumes returns an error for the first existing volume in mounts that can be made from a
// directory on the host. Docker Compose adds a prefix to the name of a volume, and devcontainer up
// replaces variables in the name. checkVolumes does not find these volumes.
func (d devcontainerCommand) checkVolumes(ctx context.Context, mounts []mount) error {
	for _, m := range mounts {
		if m.source == "" || !m.isVolume() || strings.Contains(m.source, "$") {
			continue
		}
		cmd := exec.CommandContext(ctx, d.engine(), "volume", "inspect", m.source)
		cmd.Env = d.environment
		out, err := cmd.Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && strings.Contains(strings.ToLower(string(exit.Stderr)), "no such volume") {
			continue
		}
		var volumes []volume
		if err == nil {
			err = json.Unmarshal(out, &volumes)
		}
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, cli.Printable(strings.TrimSpace(string(exit.Stderr))))
		}
		for _, volume := range volumes {
			if !volume.isSafe() {
				err = errors.New("it can be a directory of this machine, because it has a driver or options that keyhatchctl does not know: use a volume without options")
			}
		}
		if err != nil {
			return fmt.Errorf("cannot check the volume %s: %w", cli.PrintableWord(m.source), err)
		}
	}
	return nil
}

// isSafe reports whether the volume is certainly not a directory of the host outside of the
// engine's own directory.
func (v volume) isSafe() bool {
	for name, value := range v.Options {
		// With bind or move, mount ignores the type. podman ignores the case of the names.
		if !slices.Contains([]string{"type", "device", "o"}, name) || name == "o" && (strings.Contains(value, "bind") || strings.Contains(value, "move")) {
			return false
		}
	}
	return v.Driver == "local" && (len(v.Options) == 0 || slices.Contains([]string{"tmpfs", "nfs", "nfs4", "cifs"}, v.Options["type"]))
}

// engine returns the command of the container engine, which the operator can choose with
// --docker-path.
func (d devcontainerCommand) engine() string {
	engine := "docker"
	for i, arg := range d.extraArgs {
		switch name, value, hasValue := cutArg(arg); {
		case name != "dockerpath":
		case hasValue:
			engine = value
		case i+1 < len(d.extraArgs):
			engine = d.extraArgs[i+1]
		}
	}
	return engine
}
