package main

import (
	"slices"
	"strings"
	"testing"
)

// TestConfigurationKeysAreExact parses outputs of devcontainer read-configuration that contain keys
// in another case. parseConfiguration must read the same keys as the Dev Container CLI, also the
// mounts in the object workspace.
func TestConfigurationKeysAreExact(t *testing.T) {
	const mountText = `"type=bind,source=/a,target=/x"`
	want := []mount{{"bind", "/a", "/x"}}
	for _, output := range []string{
		`{"configuration": {}, "workspace": {}, "mergedConfiguration": {"mounts": [` + mountText + `], "Mounts": []}}`,
		`{"configuration": {}, "workspace": {}, "mergedConfiguration": {"mounts": [` + mountText + `]}, "MergedConfiguration": {}}`,
		`{"configuration": {}, "workspace": {}, "mergedConfiguration": {"workspaceMount": ` + mountText + `, "WorkspaceMount": ""}}`,
		`{"configuration": {}, "workspace": {"workspaceMount": ` + mountText + `, "WorkspaceMount": ""}, "mergedConfiguration": {}}`,
		`{"configuration": {}, "workspace": {"workspaceMount": "", "additionalMountString": ` + mountText + `}, "mergedConfiguration": {"mounts": null}}`,
	} {
		c, err := parseConfiguration([]byte(output), nil)
		if err != nil || !slices.Equal(c.mounts, want) {
			t.Errorf("%s: %v, %v", output, c, err)
		}
	}
	for _, output := range []string{
		``, `1`, `{}`, `{"configuration": {}, "workspace": {}, "MergedConfiguration": {}}`,
		`{"configuration": {}, "mergedConfiguration": {}}`, `{"workspace": {}, "mergedConfiguration": {}}`,
		`{"configuration": {}, "workspace": null, "mergedConfiguration": {}}`,
		`{"configuration": {}, "workspace": {}, "mergedConfiguration": {"mounts": {}}}`,
		`{"configuration": {}, "workspace": {}, "mergedConfiguration": {"mounts": ["type=glob,source=/a,target=/x"]}}`,
	} {
		if c, err := parseConfiguration([]byte(output), nil); err == nil {
			t.Errorf("%s: no error: %v", output, c)
		}
	}
}

// TestConfigurationDangers checks that each property that can act outside of the container has a
// line with its complete value, also if its value is empty or the property is unknown. Properties
// that act only in the container have no line.
func TestConfigurationDangers(t *testing.T) {
	parse := func(configuration, merged string) string {
		t.Helper()
		output := `{"configuration": ` + configuration + `, "workspace": {}, "mergedConfiguration": ` + merged + `}`
		c, err := parseConfiguration([]byte(output), []string{"SHORT=abc", "HOME=/home/operator", "MY_TOKEN=tripwire\"/home/operator", `QUOTED=tripwire2"`, "SRC=/home/operator/src", "AND=one&two&three"})
		if err != nil {
			t.Fatalf("%s: %v", output, err)
		}
		return strings.Join(c.dangers, "")
	}
	for configuration, want := range map[string]string{
		`"initializeCommand": {"a": "touch \u001b[2J\n\u202e"}`:       `initializeCommand: {"a": "touch \u001b[2J\n\u202e"}`,
		"\"initializeCommand\": \"touch \u202e\"":                     `initializeCommand: "\"touch \u202e\""`,
		`"initializeCommand": ""`:                                     `initializeCommand: ""`,
		`"runArgs": ["--pid=host"]`:                                   `runArgs: ["--pid=host"]`,
		`"runArgs": ["` + strings.Repeat("x", 5000) + `"]`:            `runArgs: ["` + strings.Repeat("x", 5000) + `"]`,
		`"dockerComposeFile": []`:                                     `dockerComposeFile: []`,
		`"dockerComposeFile": null`:                                   `dockerComposeFile: null`,
		`"dockerComposeFile": false`:                                  `dockerComposeFile: false`,
		`"build": {"dockerfile":"Dockerfile","options":["--output"]}`: `build: {"dockerfile":"Dockerfile","options":["--output"]}`,
		`"appPort": "0.0.0.0:22:22"`:                                  `appPort: "0.0.0.0:22:22"`,
		`"hostRequirements": {"gpu":true}`:                            `hostRequirements: {"gpu":true}`,
		`"privileged": false`:                                         `privileged: false`,
		`"Image": "x"`:                                                `Image: "x"`,
		`"unknown property": 1`:                                       `"unknown\x20property": 1`,
		`"containerEnv": {"X":"a tripwire\"/home/operator"}`:          `containerEnv: {"X":"a ${localEnv:MY_TOKEN}"}`,
		`"features": {"x":{"token":"tripwire2\""}}`:                   `features: {"x":{"token":"${localEnv:QUOTED}"}}`,
		`"runArgs": ["/home/operator/src/x", "one&two&three"]`:        `runArgs: ["${localEnv:SRC}/x", "${localEnv:AND}"]`,
		`"remoteEnv": {"X":"/home/operator/bin"}`:                     `remoteEnv: {"X":"${localEnv:HOME}/bin"}`,
		`"runArgs": ["-eX=tripwire2\""]`:                              `runArgs: ["-eX=${localEnv:QUOTED}"]`,
		`"build": {"args":{"X":"tripwire\"/home/operator"}}`:          `build: {"args":{"X":"${localEnv:MY_TOKEN}"}}`,
	} {
		want = "! dev container: " + want + "\n"
		// The merged configuration repeats the properties.
		if got := parse("{"+configuration+"}", "{"+configuration+"}"); got != want {
			t.Errorf("%s:\n got %s\nwant %s", configuration, got, want)
		}
	}
	// The image and the Features add properties to the merged configuration.
	if got, want := parse(`{}`, `{"privileged": true, "init": false, "capAdd": ["ALL"], "securityOpt": ["seccomp=unconfined"]}`),
		"! dev container: capAdd: [\"ALL\"]\n! dev container: privileged: true\n! dev container: securityOpt: [\"seccomp=unconfined\"]\n"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got, want := parse(`{"privileged": false}`, `{"privileged": true}`),
		"! dev container: privileged: false\n! dev container: privileged: true\n"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got := parse(`{"name": "x", "image": "x", "features": {"a": {}}, "mounts": ["type=volume,source=v,target=/home/operator"], "configFilePath": "/home/operator/x", "containerEnv": {"X":"abc"}, "postCreateCommand": "x", "customizations": {"vscode": {}}}`,
		`{"name": "x", "privileged": false, "hostRequirements": {"cpus":null,"memory":"-Infinity","storage":"-Infinity"}, "init": true, "postCreateCommands": ["x"], "entrypoints": ["x"]}`); got != "" {
		t.Errorf("got lines for harmless properties: %s", got)
	}
}

// TestConfigurationArgs checks which arguments of devcontainer up devcontainer read-configuration
// also gets.
func TestConfigurationArgs(t *testing.T) {
	for upArgs, want := range map[string]string{
		"":                                           "",
		"--remove-existing-container --prebuild":     "",
		"--config a --mount b":                       "--config a",
		"--config=a --override-config b":             "--config=a --override-config b",
		"--dockerPath podman":                        "--dockerPath podman",
		"--mount-git-worktree-common-dir":            "--mount-git-worktree-common-dir",
		"--mount-workspace-git-root false --mount x": "--mount-workspace-git-root false",
		"--mount-workspace-git-root --prebuild":      "--mount-workspace-git-root",
		"--additional-features {} --id-label a=b":    "--additional-features {}",
	} {
		if got := strings.Join(configurationArgs(strings.Fields(upArgs)), " "); got != want {
			t.Errorf("%s: got %q, want %q", upArgs, got, want)
		}
	}
}
