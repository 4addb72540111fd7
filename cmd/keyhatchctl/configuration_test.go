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
		c, err := parseConfiguration([]byte(output))
		if err != nil || !slices.Equal(c.mounts, want) || len(c.dangers) > 0 {
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
		if c, err := parseConfiguration([]byte(output)); err == nil {
			t.Errorf("%s: no error: %v", output, c)
		}
	}
}

// TestConfigurationDangers checks the lines about properties that can control the host. Each such
// property must have a line, which must not contain control characters.
func TestConfigurationDangers(t *testing.T) {
	c, err := parseConfiguration([]byte(`{
		"configuration": {"initializeCommand": {"a": "touch \u001b[2J"}, "InitializeCommand": "x", "runArgs": ["--pid=host"], "dockerComposeFile": "c.yml"}, "workspace": {},
		"mergedConfiguration": {"privileged": true, "capAdd": ["ALL"], "securityOpt": ["seccomp=unconfined"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.dangers) != 6 {
		t.Errorf("got %d lines, want 6", len(c.dangers))
	}
	lines := strings.Join(c.dangers, "")
	for _, want := range []string{"initializeCommand: ", `touch \`, `runArgs: `, `["--pid=host"]`, `dockerComposeFile: `, `privileged: `, `capAdd: `, `securityOpt: `} {
		if !strings.Contains(lines, want) {
			t.Errorf("the lines do not contain %q:\n%s", want, lines)
		}
	}
	if strings.Contains(lines, "\x1b") {
		t.Errorf("the lines contain a control character: %q", lines)
	}
	c, err = parseConfiguration([]byte(`{"configuration": {"initializeCommand": "", "runArgs": []}, "workspace": {}, "mergedConfiguration": {"privileged": false, "capAdd": null}}`))
	if err != nil || len(c.dangers) > 0 {
		t.Errorf("got lines for empty properties: %v, %v", c.dangers, err)
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
