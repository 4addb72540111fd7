package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/broker/wire"
	"github.com/keyhatch/keyhatch/schema"
)

// TestSuggestedNameIsValid registers a project whose name is in use and has the maximum length.
// The name in the hint must have at most the maximum length.
func TestSuggestedNameIsValid(t *testing.T) {
	dir, name := t.TempDir(), strings.Repeat("a", maxProjectName)
	if err := os.Mkdir(filepath.Join(dir, ".keyhatch"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".keyhatch", "manifest.yaml"), []byte("schema_version: 1\nproject: "+name+"\nsecrets: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := fakeBroker(t, func(op, line string) string {
		var request schema.RegisterRequest
		switch op {
		case "ping":
			return pingResponse
		case "status":
			return `{"ok":true,"projects":[]}`
		}
		if err := wire.Decode([]byte(line), &request, schema.MaxDepth); err != nil || !schema.ValidProjectName(request.Name) {
			t.Errorf("sent %s, error %v", line, err)
		}
		if request.Name == schema.ProjectName(name) {
			return `{"ok":false,"code":"project_exists","message":"in use"}`
		}
		return `{"ok":true,"socket_path":"/s"}`
	})
	_, err := runCommand(t, "--socket", socket, "register", dir)
	if !strings.Contains(hintOf(err), " --name "+name[:maxProjectName-2]+"-2 ") {
		t.Errorf("error %v, hint %q", err, hintOf(err))
	}
}
