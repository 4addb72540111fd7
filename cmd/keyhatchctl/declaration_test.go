package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/manifest"
)

// TestDeclarationFollowsRegistration changes a declared project with reload and with register. If
// the broker refuses the change, the old declaration must be in effect at the end. When the
// broker gets a request that renames the project, there must be only one declaration, because
// keyhatchctl can be killed at that time.
func TestDeclarationFollowsRegistration(t *testing.T) {
	for _, c := range []struct {
		name    string
		command []string
		project string // value of project in the new manifest
		refused bool
		// during lists the declarations when the broker gets the request, and after lists those
		// at the end.
		during, after string
	}{
		{"reload", []string{"reload", "--yes"}, "api", false, "api.yaml: new", "api.yaml: new"},
		{"reload is refused", []string{"reload", "--yes"}, "api", true, "api.yaml: new", "api.yaml: old"},
		{"register is refused", []string{"register", "--yes"}, "api", true, "api.yaml: new", "api.yaml: old"},
		{"rename", []string{"register", "--yes"}, "web", false, "web.yaml: new", "web.yaml: new"},
		{"rename is refused", []string{"register", "--yes"}, "web", true, "web.yaml: new", "api.yaml: old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			project, projectsDir := filepath.Join(dir, "api"), filepath.Join(dir, "projects.d")
			write := func(file, text string) {
				t.Helper()
				err := os.MkdirAll(filepath.Dir(file), 0o755)
				if err == nil {
					err = os.WriteFile(file, []byte(text), 0o644)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			const oldManifest = "schema_version: 1\nproject: api\nsecrets: {}\n"
			newManifest := "schema_version: 1\nproject: " + c.project + "\nsecrets: {A: }\n"
			write(filepath.Join(project, ".keyhatch", "manifest.yaml"), newManifest)
			old, err := manifest.Declaration{Name: "api", Path: project, Manifest: oldManifest}.Encode()
			if err != nil {
				t.Fatal(err)
			}
			oldText := "# a comment of the operator\n" + string(old)
			write(filepath.Join(projectsDir, "api.yaml"), oldText)
			declarations := func() string {
				declared, invalid, err := manifest.ReadDeclarations(projectsDir)
				if err != nil || len(invalid) > 0 {
					t.Errorf("reading the declarations: %v, %v", invalid, err)
				}
				var list []string
				for name, d := range declared {
					text, _ := os.ReadFile(filepath.Join(projectsDir, name+".yaml"))
					switch {
					case string(text) == oldText:
						list = append(list, name+".yaml: old")
					case d.Manifest == newManifest:
						list = append(list, name+".yaml: new")
					default:
						list = append(list, name+".yaml: "+string(text))
					}
				}
				return strings.Join(list, ", ")
			}
			during := ""
			socket := fakeBroker(t, func(op, request string) string {
				if strings.Contains(request, `"dry_run":true`) {
					return `{"ok":true,"socket_path":"/s"}`
				}
				switch op {
				case "ping":
					return pingResponse
				case "status":
					return fmt.Sprintf(`{"ok":true,"projects_dir":"%s","projects":[{"name":"api","project_path":"%s","socket_path":"/s","declared":true}]}`, projectsDir, project)
				case "inspect":
					return fmt.Sprintf(`{"ok":true,"name":"api","project_path":"%s","socket_path":"/s","manifest":%q,"declared":true}`, project, oldManifest)
				}
				during = declarations()
				if c.refused {
					return `{"ok":false,"code":"internal_error","message":"the broker is stopping"}`
				}
				return `{"ok":true,"socket_path":"/s"}`
			})
			_, err = runCommand(t, append([]string{"--socket", socket}, append(c.command, project)...)...)
			if (err != nil) != c.refused {
				t.Errorf("the error is %v", err)
			}
			if during != c.during {
				t.Errorf("when the broker gets the request, the declarations are %s, want %s", during, c.during)
			}
			if after := declarations(); after != c.after {
				t.Errorf("at the end, the declarations are %s, want %s", after, c.after)
			}
		})
	}
}
