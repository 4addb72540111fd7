package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// TestReloadSendsManifestThatWasShown changes the manifest after reload has shown the manifest
// and before it sends the request, as hostile code in the container could. reload must send the
// manifest that it has shown.
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
	inspections, registrations := 0, 0
	socket := fakeBroker(t, func(op, line string) string {
		switch op {
		case "ping":
			return pingResponse
		case "status":
			return `{"ok":true,"broker_version":"9","protocol_version":2,"instance_id":"x","uptime_seconds":1,"generation":0,` +
				`"secret_count":0,"memory":"memfd_secret","projects":[{"name":"api","project_path":"` + dir + `","socket_path":"/s",` +
				`"allowlist_size":0,"counts":{"allowed":0,"denied":0,"not_found":0},"connections":0,"manifest_sha256":""}]}`
		case "inspect":
			if inspections++; inspections == 2 { // reload has read and shown the manifest before this request
				writeManifest("SLIPPED_IN")
			}
			return `{"ok":true,"name":"api","project_path":"` + dir + `","socket_path":"/s","manifest":"schema_version: 1\nproject: api\nsecrets: {}\n","declared":false}`
		}
		var request schema.RegisterRequest
		if err := wire.Decode([]byte(line), &request, schema.MaxDepth); err != nil {
			t.Error(err)
		}
		if request.Manifest == nil || *request.Manifest != shown || request.Name != "api" || !request.Replace {
			t.Errorf("sent %s", line)
		}
		registrations++
		return `{"ok":true,"socket_path":"/s"}`
	})
	out, err := runCommand(t, "--socket", socket, "reload", "--yes", "api")
	if err != nil || inspections != 2 || registrations != 1 || !strings.Contains(out, "\n+ secret SHOWN: ") {
		t.Errorf("%d inspections, %d registrations, %v, %q", inspections, registrations, err, out)
	}
}

// TestReloadRefusesChangedRegistration changes the registration after reload has shown the
// changes. reload must fail. Otherwise reload would apply changes that it has not shown.
func TestReloadRefusesChangedRegistration(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "api")
	if err := os.MkdirAll(filepath.Join(dir, ".keyhatch"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".keyhatch", "manifest.yaml"), []byte("schema_version: 1\nproject: api\nsecrets: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	inspections := 0
	socket := fakeBroker(t, func(op, line string) string {
		switch op {
		case "ping":
			return pingResponse
		case "status":
			return `{"ok":true,"projects":[{"name":"api","project_path":"` + dir + `","socket_path":"/s"}]}`
		case "inspect":
			inspections++
			return fmt.Sprintf(`{"ok":true,"name":"api","project_path":"%s","socket_path":"/s","manifest":"schema_version: 1\nproject: api\nsecrets: {S%d: }\n","declared":false}`, dir, inspections)
		}
		t.Errorf("sent %s", line)
		return `{"ok":true}`
	})
	if _, err := runCommand(t, "--socket", socket, "reload", "--yes", "api"); !errors.Is(err, errChangedMeanwhile) {
		t.Errorf("the error is %v", err)
	}
}

// TestReloadDropsDevcontainerIDsBeyondLimit reloads a project whose registration has so many dev
// container IDs that a request with all of them would be too long. reload must remove some IDs,
// show this change, and apply the new manifest.
func TestReloadDropsDevcontainerIDsBeyondLimit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "api")
	if err := os.MkdirAll(dir+"/.keyhatch", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/.keyhatch/manifest.yaml", []byte("schema_version: 1\nproject: api\nsecrets: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i := range 1100 {
		ids = append(ids, `"`+string(devcontainerID(dir, fmt.Sprint(i)))+`"`)
	}
	sent := -1
	socket := fakeBroker(t, func(op, line string) string {
		switch op {
		case "ping":
			return pingResponse
		case "status":
			return `{"ok":true,"projects":[{"name":"api","project_path":"` + dir + `","socket_path":"/s"}]}`
		case "inspect":
			return `{"ok":true,"name":"api","project_path":"` + dir + `","socket_path":"/s","manifest":"schema_version: 1\nproject: api\nsecrets: {A: }\n","declared":false,` +
				`"devcontainer_ids":[` + strings.Join(ids, ",") + `]}`
		}
		sent = len(line)
		return `{"ok":true,"socket_path":"/s"}`
	})
	out, err := runCommand(t, "--socket", socket, "reload", "--yes", "api")
	if err != nil || sent < 0 || sent > schema.MaxRequest/4 || !strings.Contains(out, "\n- secret A: ") || !strings.Contains(out, "\n- dev containers of earlier ") {
		t.Errorf("the request has %d bytes, error %v, printed %q", sent, err, out)
	}
}
