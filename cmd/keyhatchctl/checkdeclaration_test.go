package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// TestFixOfDeclarationIgnoresTextOfPaths checks which fix keyhatchctl prints for a message of the
// broker. Some messages contain a path whose text looks like the cause in another message. The fix
// must depend only on the cause. Otherwise, untrusted code could choose a path so that keyhatchctl
// tells the operator to remove the declaration.
func TestFixOfDeclarationIgnoresTextOfPaths(t *testing.T) {
	dir := t.TempDir()
	text, err := manifest.Declaration{Name: "api", Path: "/src/api", Manifest: "schema_version: 1\nproject: api\nsecrets: {}\n"}.Encode()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "api.yaml"), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	for message, want := range map[string]string{
		"the declared project is not served: web.yaml declares the same path and is in effect: remove one of the two files": "remove the file, ",
		"the declared project is not served: cannot open /src/web.yaml declares the same path and is in effect: x":          "serve the declaration: ",
		"the declared project is not served: cannot open /src/must belong to root":                                          "serve the declaration: ",
		"api.yaml is not a valid declaration: must not be writable by other users, because":                                 "chmod go-w ",
		"api.yaml is not a valid declaration: must belong to root or the broker's user":                                     "chown root ",
		"api.yaml is not a valid declaration: /must not be writable by other users":                                         "serve the declaration: ",
	} {
		p := schema.ProjectProblem{Project: "api", Problem: schema.ProblemNotApplied, Message: message}
		f := checkDeclaration(t.Context(), p, schema.StatusResponse{ProjectsDir: dir}, declarationCheck{o: &globalOptions{}})
		if first, _, _ := strings.Cut(f.Fix, " && "); !strings.Contains(first, want) {
			t.Errorf("the fix for %q is %q, want %q", message, f.Fix, want)
		}
	}
}

// TestDifferencesFitOnTerminal compares a served project with a declaration that contains a long
// line of a template. Each printed line must have at most 79 characters, because a terminal
// continues a longer line at its left edge.
func TestDifferencesFitOnTerminal(t *testing.T) {
	template := strings.Repeat("x", 200) + "\n  " + strings.Repeat("y", 67) + "\n"
	text := "schema_version: 1\nproject: api\nsecrets: {A: {as: file, path: ~/.npmrc, template: " + strconv.Quote(template) + "}}\n"
	declaration, err := manifest.Declaration{Name: "api", Path: "/src/api", Manifest: text}.Encode()
	file := filepath.Join(t.TempDir(), "api.yaml")
	if err == nil {
		err = os.WriteFile(file, declaration, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	served, err := manifest.Parse([]byte("schema_version: 1\nproject: api\nsecrets: {A: }\n"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	f := cli.Finding{Check: "x", Problem: "y", Detail: differences(schema.InspectResponse{Name: "api", ProjectPath: "/src/api"}, served, file)}
	if err := cli.PrintFindings(&out, []cli.Finding{f}, false); err == nil || !strings.Contains(out.String(), "| xxx") {
		t.Fatalf("doctor prints\n%s", out.String())
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 79+len("\n") {
			t.Errorf("this line has %d characters: %s", len(line)-1, line)
		}
	}
}
