package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// TestRegisterSendsManifestPathAndOwner runs register with a link to a project's directory. The
// request must contain the manifest's text, the path without links, and the owner of the
// directory, because a broker in a sandbox cannot read the directory.
func TestRegisterSendsManifestPathAndOwner(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "api")
	const text = "schema_version: 1\nproject: api\nsecrets: {A: }\n"
	if err := os.MkdirAll(filepath.Join(dir, ".keyhatch"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".keyhatch", "manifest.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("api", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if os.Geteuid() == 0 { // use another owner than the current user
		owner = 4321
		if err := os.Chown(dir, 4321, -1); err != nil {
			t.Fatal(err)
		}
	}
	var sent schema.RegisterRequest
	socket := fakeBroker(t, func(op, line string) string {
		switch op {
		case "ping":
			return pingResponse
		case "status":
			return `{"ok":true,"projects":[]}`
		}
		if err := wire.Decode([]byte(line), &sent, schema.MaxDepth); err != nil {
			t.Error(err)
		}
		return `{"ok":true,"socket_path":"/run/keyhatch/projects/api/broker.sock"}`
	})
	out, err := runCommand(t, "--socket", socket, "register", "--yes", filepath.Join(root, "link"), "--allow-uid", "7", "--allow-uid", "8")
	if err != nil {
		t.Fatal(err)
	}
	if sent.Name != "api" || sent.ProjectPath != dir || sent.Manifest == nil || *sent.Manifest != text ||
		!slices.Equal(sent.AllowUIDs, []uint32{owner, 7, 8}) {
		t.Errorf("sent %+v, but the owner is %d", sent, owner)
	}
	want, _ := devcontainerIDs(dir)
	ofLink, _ := devcontainerIDs(filepath.Join(root, "link"))
	want = append(want, ofLink...)
	if len(want) != 4 || !slices.Equal(sent.DevcontainerIDs, want) {
		t.Errorf("sent %v, want %v", sent.DevcontainerIDs, want)
	}
	if want := "\nregistered api: its socket is /run/keyhatch/projects/api/broker.sock\nmount /run/keyhatch/projects/api at /run/keyhatch in the project's container\n"; !strings.HasSuffix(out, want) {
		t.Errorf("printed %q, want %q at the end", out, want)
	}
}

// TestRegisterRefusesLineBreakAtEndOfPath runs register with a path that ends with a line break.
// register must fail. Otherwise a hint could contain this path, and a shell would remove the line
// break and use another directory.
func TestRegisterRefusesLineBreakAtEndOfPath(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "api\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("api\n", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(root, "root\n")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"api\n", "link", "root\n"} {
		_, err := runCommand(t, "--socket", "/none", "register", filepath.Join(root, name))
		if err == nil || !strings.HasSuffix(err.Error(), ": the path must not end with a line break: rename the directory") {
			t.Errorf("register %q returned the error %v", name, err)
		}
	}
}

// TestNoCommandContainsPathThatEndsWithLineBreak creates states in which a path ends with a line
// break. No hint and no fix may contain a command with this path, because a shell would remove
// the line break and use another directory.
func TestNoCommandContainsPathThatEndsWithLineBreak(t *testing.T) {
	root := t.TempDir()
	manifestDir := filepath.Join(root, "api\n", ".keyhatch")
	if err := os.MkdirAll(manifestDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(manifestDir, "manifest.yaml"), []byte("schema_version: 1\nproject: api\nsecrets: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := fakeBroker(t, func(op, _ string) string {
		if op == "ping" {
			return pingResponse
		}
		return `{"ok":true,"projects":[]}`
	})
	t.Chdir(root)
	const want = "rename the directory, because its name ends with a line break"
	for _, args := range [][]string{{"reload", "./api\n"}, {"unregister", root + "/api\n"}, {"register", "api\n/.keyhatch/manifest.yaml"}} {
		_, err := runCommand(t, append([]string{"--socket", socket}, args...)...)
		if hint := hintOf(err); !strings.HasSuffix(hint, want) || strings.Contains(hint, "printf") {
			t.Errorf("%q: error %v, hint %s", args, err, hint)
		}
	}
	p := schema.ProjectProblem{Project: "api", ProjectPath: root + "/api\n", Problem: schema.ProblemNotRestored}
	if fix := notRestoredFix(p, &globalOptions{socket: "/s"}); !strings.HasPrefix(fix, "to serve the project with its current manifest: "+want+"\n") {
		t.Errorf("the fix is %s", fix)
	}
}

// TestRegisterComparesWithStoredRegistration registers a project whose registration the broker
// has stored but does not serve. The project is not declared. register must compare the project
// with the stored registration. If the broker does not find this registration, register must
// fail, and must not treat the project as new.
func TestRegisterComparesWithStoredRegistration(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".keyhatch"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".keyhatch", "manifest.yaml"), []byte("schema_version: 1\nproject: api\nsecrets: {A: , B: }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for inspected, want := range map[string]string{
		`{"ok":true,"name":"api","project_path":"` + dir + `","socket_path":"/s","manifest":"schema_version: 1\nproject: api\nsecrets: {A: }\n","declared":false,"unserved":true}`: "cannot ask for approval",
		`{"ok":false,"code":"project_unknown","message":"api is not registered"}`:                                                                                                  "api is not registered",
	} {
		socket := fakeBroker(t, func(op, line string) string {
			switch op {
			case "ping":
				return pingResponse
			case "status":
				return `{"ok":true,"projects":[],"problems":[{"project":"api","project_path":"` + dir + `","problem":"registration_not_restored","message":"x"}]}`
			case "inspect":
				return inspected
			}
			if !strings.Contains(line, `"dry_run":true`) {
				t.Errorf("sent %s", line)
			}
			return `{"ok":true,"socket_path":"/s"}`
		})
		if _, err := runCommand(t, "--socket", socket, "register", dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
