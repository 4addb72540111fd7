package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
)

// A devConfiguration is the part of a dev container's configuration that up checks and shows.
type devConfiguration struct {
	mounts []mount
	// dangers contains a line for each property that can act outside of the container.
	dangers []string
}

// A devcontainerCommand contains how to run the Dev Container CLI for a project.
type devcontainerCommand struct {
	path        string
	environment []string
	folder      string   // the project's directory
	extraArgs   []string // the operator's arguments for devcontainer up
}

// readConfiguration returns the configuration with which devcontainer up would create the
// container.
func (d devcontainerCommand) readConfiguration(ctx context.Context) (devConfiguration, error) {
	// If the container exists, the Dev Container CLI prints the mounts in a label of the
	// container. No container has this random label.
	args := []string{"read-configuration", "--include-merged-configuration", "--workspace-folder", d.folder, "--id-label", "keyhatch.check=" + rand.Text()}
	cmd := exec.CommandContext(ctx, d.path, append(args, configurationArgs(d.extraArgs)...)...)
	cmd.Env = d.environment
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return devConfiguration{}, fmt.Errorf("devcontainer read-configuration failed: %w:\n%s%s", err, out, stderr.String())
	}
	return parseConfiguration(out, d.environment)
}

// parseConfiguration parses the output of devcontainer read-configuration. It decodes objects as
// maps, because encoding/json ignores the case of a struct's keys, and untrusted code can add a key
// in another case. environment is the environment of devcontainer read-configuration.
func parseConfiguration(out []byte, environment []string) (c devConfiguration, err error) {
	var top, configuration, merged, workspace map[string]json.RawMessage
	if err := json.Unmarshal(out, &top); err != nil {
		return c, errors.New("devcontainer read-configuration printed unexpected output: not the expected JSON")
	}
	for _, object := range []struct {
		key    string
		fields *map[string]json.RawMessage
	}{{"configuration", &configuration}, {"mergedConfiguration", &merged}, {"workspace", &workspace}} {
		if json.Unmarshal(top[object.key], object.fields) != nil || *object.fields == nil {
			return c, fmt.Errorf("devcontainer read-configuration printed unexpected output: no object %s", object.key)
		}
	}
	var mounts []json.RawMessage
	if text, ok := merged["mounts"]; ok && json.Unmarshal(text, &mounts) != nil {
		return c, errors.New("devcontainer read-configuration printed unexpected output: mounts is not a list")
	}
	// The mount of a git worktree is additionalMountString.
	mounts = append(mounts, merged["workspaceMount"], workspace["workspaceMount"], workspace["additionalMountString"])
	for _, raw := range mounts {
		m, err := parseMount(raw)
		if err != nil {
			return c, fmt.Errorf("cannot check the mount %s in the configuration of the dev container: %w", cli.PrintableWord(string(raw)), err)
		}
		if m != (mount{}) {
			c.mounts = append(c.mounts, m)
		}
	}
	mask := localEnvReplacer(environment)
	for _, object := range []map[string]json.RawMessage{configuration, merged} {
		for _, name := range slices.Sorted(maps.Keys(object)) {
			value := string(object[name])
			masked := mask.Replace(value)
			_, isConfigured := configuration[name]
			if !isConfigured && slices.Contains(defaultValues, value) || slices.Contains(checkedProperties, name) ||
				slices.Contains(harmlessProperties, name) && masked == value {
				continue
			}
			line := fmt.Sprintf("! dev container: %s: %s\n", cli.PrintableWord(name), cli.Printable(masked))
			if !slices.Contains(c.dangers, line) {
				c.dangers = append(c.dangers, line)
			}
		}
	}
	return c, nil
}

// defaultValues contains the values with which the Dev Container CLI adds properties to the merged
// configuration if nothing sets them.
var defaultValues = []string{"false", `{"cpus":null,"memory":"-Infinity","storage":"-Infinity"}`}

// checkedProperties contains the properties that up checks, and the path of devcontainer.json.
var checkedProperties = []string{"mounts", "workspaceMount", "configFilePath"}

// harmlessProperties contains the properties of devcontainer.json and of the merged configuration
// that act only in the container or in the editor, if they contain no value of the environment of
// this machine. The effects of the Features are properties of the merged configuration.
var harmlessProperties = strings.Fields(`
	$schema name image features overrideFeatureInstallOrder containerEnv remoteEnv workspaceFolder
	forwardPorts portsAttributes otherPortsAttributes customizations remoteUser containerUser updateRemoteUserUID
	userEnvProbe overrideCommand shutdownAction init entrypoints waitFor
	onCreateCommand updateContentCommand postCreateCommand postStartCommand postAttachCommand
	onCreateCommands updateContentCommands postCreateCommands postStartCommands postAttachCommands`)

// minMaskedValue is the minimum length of a value that localEnvReplacer replaces, in bytes. Shorter
// values are probably no secrets, and can be a part of any text.
const minMaskedValue = 8

// localEnvReplacer returns a replacer for JSON that contains values of the environment. The Dev
// Container CLI replaces ${localEnv:NAME} with such a value, which can be a secret. The replacer
// restores the variable.
func localEnvReplacer(environment []string) *strings.Replacer {
	variables := map[string]string{} // the key is the value of the variable
	for _, entry := range environment {
		if name, value, _ := strings.Cut(entry, "="); len(value) >= minMaskedValue {
			var encoded strings.Builder
			enc := json.NewEncoder(&encoded)
			enc.SetEscapeHTML(false) // JSON.stringify does not escape & and <
			enc.Encode(value)        // encoding strings cannot fail
			text := strings.TrimSuffix(strings.TrimPrefix(encoded.String(), `"`), "\"\n")
			variables[text] = "${localEnv:" + name + "}"
		}
	}
	// A value can be a part of another value.
	values := slices.SortedFunc(maps.Keys(variables), func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, value := range values {
		pairs = append(pairs, value, variables[value])
	}
	return strings.NewReplacer(pairs...)
}

// hasKeyhatchMount reports whether there is a mount at containerDir. The container engine would
// refuse a second mount there.
func (c devConfiguration) hasKeyhatchMount() bool {
	return slices.ContainsFunc(c.mounts, func(m mount) bool { return m.target == containerDir })
}

// configurationArgs returns the arguments in upArgs that change the configuration or select the
// container engine. devcontainer up gets upArgs, and devcontainer read-configuration needs these
// arguments, too. devcontainer read-configuration refuses most other arguments.
func configurationArgs(upArgs []string) (args []string) {
	for i, arg := range upArgs {
		name, _, hasValue := cutArg(arg)
		takesValue := false
		switch name {
		case "config", "overrideconfig", "dockerpath", "dockercomposepath", "additionalfeatures", "allowcrossoriginauthhost":
			takesValue = true
		case "mountworkspacegitroot", "mountgitworktreecommondir", "ociauthhardening":
			takesValue = i+1 < len(upArgs) && (upArgs[i+1] == "true" || upArgs[i+1] == "false")
		default:
			continue
		}
		args = append(args, arg)
		if takesValue && !hasValue && i+1 < len(upArgs) {
			args = append(args, upArgs[i+1])
		}
	}
	return args
}

// cutArg returns the name of a flag without dashes and in lower case, and its value if the same
// argument contains it. For the Dev Container CLI, --dockerPath is the same as --docker-path. If arg
// is not a flag, the name is "".
func cutArg(arg string) (name, value string, hasValue bool) {
	if !strings.HasPrefix(arg, "--") {
		return "", "", false
	}
	name, value, hasValue = strings.Cut(arg, "=")
	return strings.ToLower(strings.ReplaceAll(name, "-", "")), value, hasValue
}
