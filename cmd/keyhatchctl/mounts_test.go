package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// TestMountsOfRuntimeDirectory checks mounts of many paths. The check must refuse a mount that
// gives a container the admin socket, the socket of another project, or the declared projects, and
// a mount that it cannot read. It must accept all other mounts.
func TestMountsOfRuntimeDirectory(t *testing.T) {
	root := t.TempDir()
	run := filepath.Join(root, "run", "keyhatch")
	for _, dir := range []string{"admin", "../projects.d", "projects/0123", "projects/4567", "devcontainers"} {
		if err := os.MkdirAll(filepath.Join(run, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		"run/keyhatch/projects/api": "0123", "run/keyhatch/projects/team": "4567", "run/keyhatch/devcontainers/id": "../projects/0123",
		"run/keyhatch/devcontainers/other": "../projects/4567", "admin": "run/keyhatch/admin", "alias": "run/keyhatch/projects/0123",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	text := func(format string) string {
		mount, err := json.Marshal(strings.ReplaceAll(format, "ROOT", root))
		if err != nil {
			t.Fatal(err)
		}
		return string(mount)
	}
	object := func(format string) string { return strings.ReplaceAll(format, "ROOT", root) }
	for mount, allowed := range map[string]bool{
		`{"type": "bind", "source": "` + run + `/projects/api", "target": "/run/keyhatch"}`:                            true,
		`{"type": "bind", "source": "` + run + `/devcontainers/id", "target": "/run/keyhatch"}`:                        true,
		`{"type": "bind", "source": "` + run + `/devcontainers/other", "target": "/run/keyhatch"}`:                     false,
		`{"type": "bind", "source": "` + run + `/devcontainers/${devcontainerId}", "target": "/run/keyhatch"}`:         true, // of the Feature
		`{"type": "bind", "source": "` + run + `/devcontainers/unused", "target": "/x"}`:                               true, // the project has this ID, but the link does not exist
		`{"type": "bind", "source": "` + run + `/devcontainers/absent", "target": "/x"}`:                               false,
		text("type=bind,source=ROOT/run/keyhatch/projects/api,target=/run/keyhatch"):                                   true,
		text("type=bind,source=ROOT/run/keyhatch/projects/0123/,target=/run/keyhatch"):                                 true,
		text("type=bind,source=ROOT/alias,target=/run/keyhatch"):                                                       true,
		text("type=bind,source=ROOT/run/keyhatch/projects/team,target=/x"):                                             false,
		text("type=bind,source=ROOT/run/keyhatch/projects/api/../team,target=/x"):                                      false,
		text("type=bind,source=ROOT/run/keyhatch/admin,target=/x"):                                                     false,
		text("type=bind,src=ROOT/run/keyhatch/admin/admin.sock,target=/x"):                                             false,
		text("\"source=ROOT/run/keyhatch/admin\",target=/x"):                                                           false,
		text("target=/x,source=ROOT/admin"):                                                                            false,
		text("type=bind,source=ROOT/run/keyhatch,target=/x"):                                                           false,
		text("type=bind,source=ROOT/run,target=/x"):                                                                    false,
		text("type=bind,source=/,target=/x"):                                                                           false,
		text("type=volume,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=ROOT/run/keyhatch/admin,target=/x"): false,
		text("type=volume,source=keyhatch,target=ROOT/run/keyhatch/admin"):                                             true,
		text("type=bind,source=ROOT/run/keyhatch-other,target=/x"):                                                     true,
		text("type=bind,source=ROOT/run/keyhatch2/admin,target=/x"):                                                    true,
		text("type=tmpfs,target=/x"):                                                                                   true, `null`: true, ``: true, `""`: true, `{"target": "/x"}`: true, `1`: false, `["type=bind"]`: false,

		// docker ignores the case of keys.
		text("type=bind,SRC=ROOT/run/keyhatch/admin,target=/x"): false,
		// docker makes a path that begins with a dot absolute.
		text("type=bind,source=./../run/keyhatch/admin,target=/x"):       false,
		text("type=bind,source=../run/keyhatch/projects/team,target=/x"): false,
		text("type=bind,source=./data,target=/x"):                        true,
		// The Dev Container CLI joins the fields of an object with commas.
		object(`{"type": "bind", "source": "/usr", "target": "/x,source=ROOT/run/keyhatch/admin"}`): false,
		object(`{"type": "bind,source=ROOT/run/keyhatch/admin", "target": "/x"}`):                   false,
		object(`{"type": "bind", "source": ["ROOT/run/keyhatch/admin"], "target": "/x"}`):           false,
		// The Dev Container CLI compares the keys of an object exactly, and ignores other keys.
		object(`{"type": "bind", "source": "ROOT/run/keyhatch/admin", "target": "/x", "SOURCE": 5}`):      false,
		object(`{"type": "bind", "source": "ROOT/run/keyhatch/admin", "target": "/x", "SOURCE": "/usr"}`): false,
		object(`{"type": "bind", "source": "/usr", "target": "/x", "consistency": "cached"}`):             true,
		// The options of a volume can contain paths.
		text("type=volume,volume-driver=local,\"VOLUME-OPT=device=ROOT/run/keyhatch/admin\",volume-opt=type=none,volume-opt=o=bind,target=/x"): false,
		text("type=volume,volume-opt=type=overlay,\"volume-opt=o=ro,lowerdir=ROOT/run/keyhatch/admin:/usr\",target=/x"):                        false,
		text("type=volume,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=run/../ROOT/run/keyhatch/admin,target=/x"):                  false,
		text("type=volume,source=data,volume-opt=type=nfs,\"volume-opt=o=addr=10.0.0.1,rw\",volume-opt=device=:/,target=/x"):                   true,
		// For Docker Compose, the Dev Container CLI splits a mount at each comma, even between quotes.
		text("type=volume,\"x=a,source=ROOT/run/keyhatch/admin\",target=/x"):    false,
		text("type=glob,src=ROOT/r*/keyhatch/admin,target=/x"):                  false,
		text("type=bind,source=/usr,target=\"/x"):                               false,
		text("type=bind,source=/usr,target=/x\nsource=ROOT/run/keyhatch/admin"): false,
		// A mount of the project's socket must have only known options, and each of them once.
		text("type=bind,source=ROOT/alias,src=ROOT/alias,target=/x"): false,
		text("type=bind,source=ROOT/alias,target=/x,unknown=1"):      false,
		text("type=bind,source=ROOT/alias,target=/x,readonly"):       true,
		// A mount of the declared projects must be refused.
		text("type=bind,source=ROOT/run/projects.d,target=/x"):          false,
		text("type=bind,source=ROOT/run/projects.d/api.yaml,target=/x"): false,
	} {
		err := mountCheck{
			folder: filepath.Join(root, "api"), projectDir: filepath.Join(run, "projects", "api"), projectsDir: filepath.Join(root, "run", "projects.d"), ids: []schema.DevcontainerID{"unused"},
		}.check([]json.RawMessage{json.RawMessage(mount)})
		if (err == nil) != allowed {
			t.Errorf("%s: %v", mount, err)
		}
	}
}
