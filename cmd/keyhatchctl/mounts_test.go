package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// TestMountsOfRuntimeDirectory calls checkMounts with mounts of many paths. checkMounts must
// refuse a mount that gives a container the admin socket or the socket of another project, and
// must accept all other mounts.
func TestMountsOfRuntimeDirectory(t *testing.T) {
	root := t.TempDir()
	run := filepath.Join(root, "run", "keyhatch")
	for _, dir := range []string{"admin", "projects/0123", "projects/4567", "devcontainers"} {
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
	for mount, allowed := range map[string]bool{
		`{"type": "bind", "source": "` + run + `/projects/api", "target": "/run/keyhatch"}`:                            true,
		`{"type": "bind", "source": "` + run + `/devcontainers/id", "target": "/run/keyhatch"}`:                        true,
		`{"type": "bind", "source": "` + run + `/devcontainers/other", "target": "/run/keyhatch"}`:                     false,
		`{"type": "bind", "source": "` + run + `/devcontainers/${devcontainerId}", "target": "/run/keyhatch"}`:         true, // of the Feature
		`{"type": "bind", "source": "` + run + `/devcontainers/unused", "target": "/x"}`:                               true, // an ID of the project, whose link does not exist
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
		text("type=tmpfs,target=/x"):                                                                                   true, `null`: true, `1`: true, `{"target": "/x"}`: true,
	} {
		err := checkMounts([]json.RawMessage{json.RawMessage(mount)}, filepath.Join(run, "projects", "api"), []schema.DevcontainerID{"unused"})
		if (err == nil) != allowed {
			t.Errorf("%s: %v", mount, err)
		}
	}
}
