package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/packaging/testenv"
	"github.com/keyhatch/keyhatch/schema"
)

// TestMountsOfRuntimeDirectory checks many mounts. The check must refuse a mount that gives a
// container the admin socket, the socket of another project, or the declared projects, and a mount
// that engines could read in different ways. It must accept all other mounts.
func TestMountsOfRuntimeDirectory(t *testing.T) {
	root := t.TempDir()
	run := filepath.Join(root, "run", "keyhatch")
	for _, dir := range []string{"admin", "../projects.d", "projects/0123", "projects/4567", "devcontainers", "../../api"} {
		if err := os.MkdirAll(filepath.Join(run, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"run/keyhatch/projects/api": "0123", "run/keyhatch/projects/team": "4567", "run/keyhatch/devcontainers/id": "../projects/0123",
		"run/keyhatch/devcontainers/other": "../projects/4567", "admin": "run/keyhatch/admin", "alias": "run/keyhatch/projects/0123",
		"api/projects": "../run/keyhatch/projects", "api/out": "/usr/lib", "api/loop": "loop", "api/${devcontainerId}": "../run/keyhatch/admin",
		"api/cwd": "/proc/self/cwd/..", "api/fd": "/dev/fd/0", "api/dangling": "none",
		"api/own": "/proc/self/cwd" + strings.Repeat("/..", 20) + run + "/projects/api",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	text := func(format string) string {
		encoded, err := json.Marshal(strings.ReplaceAll(format, "ROOT", root))
		if err != nil {
			t.Fatal(err)
		}
		return string(encoded)
	}
	object := func(format string) string { return strings.ReplaceAll(format, "ROOT", root) }
	for input, allowed := range map[string]bool{
		// The project's own socket.
		object(`{"type": "bind", "source": "ROOT/run/keyhatch/projects/api", "target": "/run/keyhatch"}`):                    true,
		object(`{"type": "bind", "source": "ROOT/run/keyhatch/devcontainers/id", "target": "/run/keyhatch"}`):                true,
		object(`{"type": "bind", "source": "ROOT/run/keyhatch/devcontainers/${devcontainerId}", "target": "/run/keyhatch"}`): true, // of the Feature
		object(`{"type": "bind", "source": "ROOT/run/keyhatch/devcontainers/unused", "target": "/x"}`):                       true, // an ID of the project, whose link does not exist
		text("type=bind,source=ROOT/run/keyhatch/projects/api,target=/run/keyhatch"):                                         true,
		text("type=bind,source=ROOT/run/keyhatch/projects/0123/,target=/run/keyhatch"):                                       true,
		text("type=bind,source=ROOT/alias,target=/run/keyhatch,readonly"):                                                    true,

		// Other directories of the broker.
		object(`{"type": "bind", "source": "ROOT/run/keyhatch/devcontainers/other", "target": "/run/keyhatch"}`): false,
		object(`{"type": "bind", "source": "ROOT/run/keyhatch/devcontainers/absent", "target": "/x"}`):           false,
		text("type=bind,source=ROOT/run/keyhatch/projects/team,target=/x"):                                       false,
		text("type=bind,source=ROOT/run/keyhatch/projects/api/../team,target=/x"):                                false,
		text("type=bind,source=ROOT/run/keyhatch/admin,target=/x"):                                               false,
		text("type=bind,src=ROOT/run/keyhatch/admin/admin.sock,target=/x"):                                       false,
		text("target=/x,source=ROOT/admin"):                                                                      false,
		text("type=bind,source=ROOT/run/keyhatch,target=/x"):                                                     false,
		text("type=bind,source=ROOT/run,target=/x"):                                                              false,
		text("type=bind,source=/,target=/x"):                                                                     false,
		text("type=bind,source=ROOT/run/projects.d,target=/x"):                                                   false,
		text("type=bind,source=ROOT/run/projects.d/api.yaml,target=/x"):                                          false,

		// docker removes .. before it follows links, and other engines do not.
		text("type=bind,source=ROOT/api/projects/../admin,target=/x"):            false,
		text("type=bind,source=ROOT/none/../run/keyhatch/admin,target=/x"):       false,
		text("type=bind,source=ROOT/api/out/../../run/keyhatch/admin,target=/x"): false,
		text("type=bind,source=ROOT/api/../shared,target=/x"):                    true,
		text("type=bind,source=ROOT/api/loop,target=/x"):                         false, // cannot be resolved
		text("type=bind,source=ROOT/api/cwd,target=/x"):                          false, // the link leads elsewhere in another process
		text("type=bind,source=ROOT/api/own,target=/x"):                          false,
		text("type=bind,source=ROOT/api/fd,target=/x"):                           false,
		text("type=bind,source=/proc/self/root/usr,target=/x"):                   false,
		text("type=bind,source=/proc/self/cwd/../none,target=/x"):                false,
		text("type=bind,source=/proc,target=/x"):                                 false,
		text("type=bind,source=ROOT/api/dangling,target=/x"):                     false,
		text("type=bind,source=ROOT/api/dangling/x,target=/x"):                   false,
		text("type=bind,source=ROOT/api/none,target=/x"):                         true,
		text("type=bind,source=ROOT/api/${devcontainerId},target=/x"):            false,
		text("type=bind,source=ROOT/api/${localWorkspaceFolder},target=/x"):      false,
		text("type=bind,source=$HOME/x,target=/x"):                               false, // a variable for Compose
		text("type=bind,source=~/x,target=/x"):                                   false, // for Compose, the home directory
		text("type=bind,source=./data,target=/x"):                                false,
		text("type=bind,source=data,target=/x"):                                  false,
		text("type=bind,source=ROOT/run/keyhatch-other,target=/x"):               true,
		text("type=bind,source=ROOT/run/keyhatch2/admin,target=/x"):              true,
		text("type=bind,source=/usr,target=/x,consistency=cached"):               true,
		object(`{"type": "bind", "source": "/usr", "target": "/x", "x": 1}`):     true,

		// podman mounts the target if a bind mount has no source.
		text("type=bind,target=/x"):                              false,
		text("type=bind,source=,target=/x"):                      false,
		object(`{"type": "bind", "target": "/x"}`):               false,
		object(`{"type": "bind", "source": "", "target": "/x"}`): false,

		// Volumes.
		text("type=volume,source=data,target=/x"):                                       true,
		text("type=volume,source=docker-${devcontainerId},target=/x"):                   true,
		text("source=data,target=/x"):                                                   true,
		text("type=volume,source=keyhatch,target=ROOT/run/keyhatch/admin"):              true,
		text("type=tmpfs,target=/x"):                                                    true,
		object(`{"target": "/x"}`):                                                      true,
		text("type=volume,source=ROOT/run/keyhatch/admin,target=/x"):                    false, // a bind mount with Compose
		text("type=tmpfs,source=ROOT/run/keyhatch/admin,target=/x"):                     false, // a bind mount with Compose
		text("type=volume,target=ROOT/run/keyhatch/admin:/x"):                           false, // a bind mount with Compose
		text("type=volume,source=v:/x,target=/x"):                                       false,
		text("type=volume,source=data,target=/x,volume-driver=local"):                   false,
		text("type=volume,source=data,target=/x,volume-opt=device=ROOT/admin"):          false,
		text("type=volume,\"volume-opt=o=lowerdir=ROOT/run/keyhatch/admin\",target=/x"): false,

		// Texts that docker, podman, and the Dev Container CLI read in different ways.
		text("\"source=ROOT/run/keyhatch/admin\",target=/x"):                                            false,
		text("type=bind,SRC=/usr,target=/x"):                                                            false,
		text("type=BIND,source=/usr,target=/x"):                                                         false,
		text("type=bind,source=/usr,src=/usr,target=/x"):                                                false,
		text("type=bind,source=/usr,target=/x,unknown=1"):                                               false,
		text("type=bind,source=/usr=x,target=/x"):                                                       false,
		text("type=bind,source=/usr,target=\"/x"):                                                       false,
		text("type=bind,source=/usr,target=/x\nsource=ROOT/run/keyhatch/admin"):                         false,
		text("type=bind,source=/usr,target=/x\u2028y"):                                                  false,
		text("type=bind,source=/usr,target=/$HOME"):                                                     false, // a variable for Compose
		text("type=bind,source=/usr,target={x}"):                                                        false,
		text("type=glob,src=ROOT/r*/keyhatch/admin,target=/x"):                                          false,
		object(`{"type": "bind", "source": "/usr", "target": "/x,source=ROOT/run/keyhatch/admin"}`):     false,
		object(`{"type": "bind,source=ROOT/run/keyhatch/admin", "target": "/x"}`):                       false,
		object(`{"type": "bind", "source": ["ROOT/run/keyhatch/admin"], "target": "/x"}`):               false,
		object(`{"type": "bind", "source": "ROOT/run/keyhatch/admin", "target": "/x", "SOURCE": 5}`):    false,
		object(`{"type": "bind", "source": "ROOT/run/keyhatch/admin", "target": "/x", "Source": "/x"}`): false,
		`1`:             false,
		`["type=bind"]`: false,
		`null`:          true,
		``:              true,
		`""`:            true,
	} {
		m, err := parseMount(json.RawMessage(input))
		if err == nil {
			_, err = mountCheck{
				folder: filepath.Join(root, "api"), projectDir: filepath.Join(run, "projects", "api"), projectsDir: filepath.Join(root, "run", "projects.d"), ids: []schema.DevcontainerID{"unused"},
			}.checkMounts([]mount{m})
		}
		if (err == nil) != allowed {
			t.Errorf("%s: %v", input, err)
		}
	}
}

// TestMountsOutsideOfProject checks that checkMounts returns each mounted path outside of the
// project's directory, also if it is mounted through a symbolic link in the project.
func TestMountsOutsideOfProject(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/api", "/outside"} {
		if err := os.Mkdir(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../outside", root+"/api/link"); err != nil {
		t.Fatal(err)
	}
	var mounts []mount
	for _, source := range []string{"/api", "/api/data", "/api/link", "/api/../shared", "/run/projects/api", ""} {
		mounts = append(mounts, mount{kind: "bind", source: root + source, target: "/x"})
	}
	mounts = append(mounts, mount{kind: "volume", source: "data", target: "/x"})
	outside, err := mountCheck{folder: root + "/api", projectDir: root + "/run/projects/api"}.checkMounts(mounts[:5])
	if want := []string{root + "/outside", root + "/shared"}; err != nil || !slices.Equal(outside, want) {
		t.Errorf("got %v, error %v, want %v", outside, err, want)
	}
	if _, err := (mountCheck{folder: root + "/api", projectDir: root + "/run/projects/api"}).checkMounts(mounts); err == nil {
		t.Error("accepted a directory that contains the runtime directory")
	}
}

// TestMountThatUserCannotSeeIsRefused mounts a path in a directory that this user cannot search.
// The container engine can search it, so a link there can lead to the admin socket.
func TestMountThatUserCannotSeeIsRefused(t *testing.T) {
	asUser := func(f func()) { f() }
	if os.Geteuid() == 0 { // root can search all directories
		asUser = func(f func()) { testenv.AsUser(t, 1000, f) }
	}
	root, err := os.MkdirTemp("", "kh") // another user cannot search the directory of t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	private := root + "/api/private"
	if err := os.MkdirAll(private, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(root+"/run/admin", private+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(private+"/link/../../../run/projects/api", root+"/api/own"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(private, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(private, 0o700) })
	check := mountCheck{folder: root + "/api", projectDir: root + "/run/projects/api"}
	for source, want := range map[string]string{
		"/api/private/link": "permission denied",
		"/api/own":          "admin socket", // private/link decides where this link leads
		"/api/private/link/../../../run/projects/api": "admin socket", // the link decides where this path leads
	} {
		asUser(func() { _, err = check.checkMounts([]mount{{kind: "bind", source: root + source, target: "/x"}}) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", source, err)
		}
	}
}
