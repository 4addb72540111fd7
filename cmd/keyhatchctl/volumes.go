package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
)

// volumeMounts returns the paths on the host from which the existing volumes in mounts were made,
// as mounts. Docker Compose adds a prefix to the name of a volume, and devcontainer up replaces
// variables in the name. volumeMounts does not find these volumes.
func (d devcontainerCommand) volumeMounts(ctx context.Context, mounts []mount) (binds []mount, err error) {
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
		var volumes []struct{ Options map[string]string }
		if err == nil {
			err = json.Unmarshal(out, &volumes)
		}
		if err != nil {
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				err = fmt.Errorf("%w: %s", err, cli.Printable(strings.TrimSpace(string(exit.Stderr))))
			}
			return nil, fmt.Errorf("cannot check the volume %s: %w", cli.PrintableWord(m.source), err)
		}
		for _, volume := range volumes {
			for _, option := range volume.Options {
				// The option o can contain several paths. :/path is a path on a server.
				for value := range strings.FieldsFuncSeq(option, func(r rune) bool { return r == '=' || r == ',' }) {
					if !strings.HasPrefix(value, "/") {
						continue
					}
					for path := range strings.SplitSeq(value, ":") {
						if strings.HasPrefix(path, "/") {
							binds = append(binds, mount{kind: "bind", source: path, target: m.target})
						}
					}
				}
			}
		}
	}
	return binds, nil
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
