package devcontainer

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpRefusesMountsOfRuntimeDirectory changes the project of a dev container in ways that once
// gave the container the broker's admin socket. keyhatchctl up must refuse to start the container.
func TestUpRefusesMountsOfRuntimeDirectory(t *testing.T) {
	h := newHost(t)
	h.startBroker()
	admin := h.runtimeDir + "/admin"
	for _, c := range []struct {
		name, properties string
		prepare          func(t *testing.T, dir string)
		args             []string // further arguments for devcontainer up
		want             string   // a part of the error
	}{
		{name: "a bind mount", properties: `"mounts": ["type=bind,source=` + admin + `,target=/adm"]`, want: "admin socket"},
		{name: "mounts in another case", properties: `"mounts": ["type=bind,source=` + admin + `,target=/adm"], "Mounts": []`, want: "admin socket"},
		{name: "workspaceMount in another case", properties: `"workspaceMount": "type=bind,source=` + admin + `,target=/adm", "workspaceFolder": "/adm", "WorkspaceMount": ""`, want: "admin socket"},
		{name: "a git root outside of the project", want: "admin socket", prepare: func(t *testing.T, dir string) {
			if _, err := output(exec.Command("git", "init", "-q", dir)); err != nil {
				t.Fatal(err)
			}
			if _, err := output(exec.Command("git", "-C", dir, "config", "core.worktree", "/")); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "the variable devcontainerId", properties: `"mounts": ["type=bind,source=${localWorkspaceFolder}/${devcontainerId},target=/adm"]`, want: "must not contain a variable"},
		{name: "a volume with a device", properties: `"mounts": ["type=volume,source=v4,target=/adm,volume-driver=local,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=${localWorkspaceFolder}/link/../admin"]`,
			want: `unknown option "volume-driver"`, prepare: func(t *testing.T, dir string) {
				if err := os.Symlink(h.runtimeDir+"/projects", dir+"/link"); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "an existing volume with a device", properties: `"mounts": ["type=volume,source=` + filepath.Base(h.dir) + `,target=/adm"]`, want: "it can be a directory of this machine", prepare: func(t *testing.T, dir string) {
			mustOutput(t, h.command("docker", "volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", "device="+admin, filepath.Base(h.dir)))
			t.Cleanup(func() { output(h.command("docker", "volume", "rm", filepath.Base(h.dir))) })
		}},
		{name: "a link through procfs", properties: `"mounts": ["type=bind,source=${localWorkspaceFolder}/l,target=/adm"]`, want: "procfs", prepare: func(t *testing.T, dir string) {
			if err := os.Symlink("/proc/self/cwd/../none", dir+"/l"); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a bind mount without a source", properties: `"mounts": ["type=bind,target=` + admin + `"]`, want: "the source is missing"},
		{name: "a git worktree", args: []string{"--mount-git-worktree-common-dir"}, want: "admin socket", prepare: func(t *testing.T, dir string) {
			relative, err := filepath.Rel(dir, h.runtimeDir+"/x/y")
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, dir+"/.git", "gitdir: "+relative+"\n")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := h.writeProject(strings.ReplaceAll(strings.ToLower(c.name), " ", "-"), "  NPM_TOKEN:\n")
			writeFile(t, dir+"/.devcontainer.json", `{"image": "`+shared.image+`", "runArgs": ["--network=none"], `+c.properties+`}`)
			if c.prepare != nil {
				c.prepare(t, dir)
			}
			h.checkUpRefuses(t, dir, c.want, c.args...)
		})
	}
	// The existing container has a label with its mounts. up must use the mounts in the
	// current devcontainer.json.
	t.Run("an existing container", func(t *testing.T) {
		dir := h.writeProject("existing", "  NPM_TOKEN:\n")
		writeFile(t, dir+"/.devcontainer.json", `{"image": "`+shared.image+`", "runArgs": ["--network=none"]}`)
		t.Cleanup(func() { h.removeContainers(t, dir) })
		mustOutput(t, h.command("keyhatchctl", "--socket", h.runtimeDir+"/admin/admin.sock", "up", "--yes", dir, "--", "--buildkit", "never"))
		writeFile(t, dir+"/.devcontainer.json", `{"image": "`+shared.image+`", "runArgs": ["--network=none"], "mounts": ["type=bind,source=`+admin+`,target=/adm"]}`)
		h.checkUpRefuses(t, dir, "admin socket", "--remove-existing-container")
	})
}

// checkUpRefuses checks that keyhatchctl up does not start the container of the project in dir,
// and that the error contains the text want.
func (h *host) checkUpRefuses(t *testing.T, dir, want string, args ...string) {
	t.Helper()
	args = append([]string{"--socket", h.runtimeDir + "/admin/admin.sock", "up", "--yes", dir, "--", "--buildkit", "never"}, args...)
	out, err := output(h.command("keyhatchctl", args...))
	if err == nil {
		t.Errorf("keyhatchctl up started the container:\n%s", out)
		h.removeContainers(t, dir)
	} else if !strings.Contains(err.Error(), want) {
		t.Errorf("the error does not contain %q: %v", want, err)
	}
}

// removeContainers removes the dev containers of the project in dir. Unlike removeContainer, it
// keeps the shared image, which these containers use directly.
func (h *host) removeContainers(t *testing.T, dir string) {
	ctx := context.Background() // t.Context is canceled before a cleanup
	ids, err := shared.engine.Docker(ctx, "ps", "-aq", "--filter", "label=devcontainer.local_folder="+dir)
	if err != nil {
		t.Error(err)
	}
	for id := range strings.FieldsSeq(ids) {
		shared.engine.Docker(ctx, "rm", "-f", id)
	}
}
