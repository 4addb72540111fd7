package devcontainer

import (
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

func parseManifest(t *testing.T, secrets string) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse([]byte("schema_version: 1\nproject: api\nsecrets: " + secrets + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestDeclaredFiles(t *testing.T) {
	m := parseManifest(t, `{A: , f: {as: file, path: ~/d/f}, g: {as: file, path: /g, mode: "640", template: t}}`)
	info := schema.InfoResponse{Allowlist: append(m.Allowlist(), "undeclared"), Secrets: m.Injections()}
	got, err := DeclaredFiles(info, nil, "/home/me")
	want := []File{{"f", "/home/me/d/f", 0o600, ""}, {"g", "/g", 0o640, "t"}}
	if err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := DeclaredFiles(info, []schema.SecretName{"A", "g"}, ""); err != nil || len(got) != 1 || got[0] != want[1] {
		t.Errorf("%v, %v", got, err)
	}
	// Both secrets must not be written to the same path.
	m = parseManifest(t, `{f: {as: file, path: ~/d/f}, g: {as: file, path: /home/me/d/f}}`)
	info = schema.InfoResponse{Allowlist: m.Allowlist(), Secrets: m.Injections()}
	if _, err := DeclaredFiles(info, nil, "/home/me/"); err == nil || !strings.Contains(err.Error(), "the secrets f and g have the same path /home/me/d/f") {
		t.Errorf("error %v, want an error about the same path", err)
	}
	for _, home := range []string{"", "me"} {
		if _, err := DeclaredFiles(info, nil, home); err == nil || !strings.Contains(err.Error(), "f: the declared path begins with ~/") {
			t.Errorf("HOME=%s: error %v, want an error about the path that begins with ~/", home, err)
		}
	}
}
