package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// TestReloadSendsManifestThatWasShown changes the manifest after reload showed it and
// before reload approves it, as hostile code in the container could.
func TestReloadSendsManifestThatWasShown(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "api")
	file := filepath.Join(dir, ".devcontainer", "keyhatch.yaml")
	writeManifest := func(secret string) string {
		text := "schema_version: 1\nproject: api\nsecrets:\n  " + secret + ":\n"
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return text
	}
	shown := writeManifest("SHOWN")
	dryRuns, reloads := 0, 0
	socket := fakeBroker(t, func(op, line string) string {
		switch op {
		case "ping":
			return pingResponse
		case "status":
			return `{"ok":true,"broker_version":"9","protocol_version":2,"instance_id":"x","uptime_seconds":1,"generation":0,` +
				`"secret_count":0,"memory":"memfd_secret","projects":[{"name":"api","project_path":"` + dir + `","socket_path":"/s",` +
				`"allowlist_size":0,"counts":{"allowed":0,"denied":0,"not_found":0},"connections":0,"manifest_sha256":""}]}`
		}
		var request schema.ReloadRequest
		if err := wire.Decode([]byte(line), &request, schema.MaxDepth); err != nil {
			t.Error(err)
		}
		if request.Manifest == nil || *request.Manifest != shown || request.Name != "api" {
			t.Errorf("sent %s", line)
		}
		if request.DryRun {
			dryRuns++
			writeManifest("SLIPPED_IN")
		} else {
			reloads++
		}
		return `{"ok":true,"allowlist":["SHOWN"],"added":["SHOWN"],"removed":[]}`
	})
	out, err := runCommand(t, "--socket", socket, "reload", "--yes", "api")
	if err != nil || dryRuns != 1 || reloads != 1 || !strings.HasPrefix(out, "+ SHOWN\n") {
		t.Errorf("%d dry runs, %d reloads, %v, %q", dryRuns, reloads, err, out)
	}
}
