package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker"
	"github.com/keyhatch/keyhatch/broker/audit"
	"github.com/keyhatch/keyhatch/packaging/testenv"
)

// TestBlockedProjectDoesNotHideOthers runs commands while a container blocks a directory of one
// project. A process that reads this directory hangs and cannot be killed. The commands for all
// projects must report the blocked project, and must show the other project.
func TestBlockedProjectDoesNotHideOthers(t *testing.T) {
	dir, err := os.MkdirTemp("", "kh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	log := slog.New(slog.DiscardHandler)
	events, err := audit.Open(audit.Config{Out: io.Discard, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	server, err := broker.New(broker.Config{RuntimeDir: dir + "/run", ProjectsDir: dir + "/projects.d", AdminGID: -1, Audit: events, Log: log, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); events.Close() })
	run := func(args ...string) (string, error) {
		return runCommand(t, append([]string{"--socket", server.AdminSocket()}, args...)...)
	}
	for _, name := range []string{"blocked", "web"} {
		if err := os.MkdirAll(filepath.Join(dir, name, ".keyhatch"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, ".keyhatch/manifest.yaml"), []byte("schema_version: 1\nproject: "+name+"\nsecrets: {A: }\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := run("register", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	tree := filepath.Join(dir, "blocked/.devcontainer")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	blocked := testenv.BlockDirectory(t, tree)
	check := func(out string, want ...string) {
		t.Helper()
		for _, text := range want {
			if !strings.Contains(out, text) {
				t.Errorf("the output does not contain %q:\n%s", text, out)
			}
		}
	}
	out, err := run("status")
	if err != nil {
		t.Error(err)
	}
	check(out, " does not answer  ", " approved ")
	if out, err = run("--json", "projects"); err != nil {
		t.Error(err)
	}
	check(out, `"manifest_state": "does not answer"`, `"manifest_state": "approved"`)
	out, _ = run("doctor")
	check(out, "BAD  project blocked: directory_blocked: ", "to end the project's access to secrets: keyhatchctl --socket "+server.AdminSocket()+" unregister blocked\n", "ok   project web: ")
	if _, err := run("reload", "blocked"); err == nil || !strings.Contains(err.Error(), "may be blocking") {
		t.Errorf("reload of the blocked project returned the error %v", err)
	}

	out, _ = run("explain", "blocked", "B")
	check(out, "BAD  allowlist: denied: ", "note manifest: directory_blocked: ", "check again: keyhatchctl --socket "+server.AdminSocket()+" explain blocked B\n")

	// Block the directory of the project's socket instead. doctor must report this.
	blocked.Unblock()
	socketDir, err := filepath.EvalSymlinks(dir + "/run/projects/blocked")
	if err != nil {
		t.Fatal(err)
	}
	testenv.BlockDirectory(t, socketDir)
	out, _ = run("doctor")
	check(out, "BAD  project blocked: directory_blocked: ", "BAD  runtime directory: directory_blocked: "+socketDir+" ", "ok   project web: ")
	if _, err := run("unregister", "blocked"); err != nil {
		t.Error(err)
	}
}
