package broker_test

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/keyhatch/keyhatch/"

// allowed are the imports within the module: the arrows of the design, and no
// others. A package that is not in it must be added, with its place.
var allowed = map[string][]string{
	"schema":               {},
	"schema/gen":           {"schema"},
	"broker/wire":          {"schema"},
	"broker/secmem":        {"schema"},
	"broker/client":        {"broker/wire", "schema"},
	"manifest":             {"schema"},
	"broker":               {"broker/secmem", "broker/wire", "manifest", "schema"},
	"sidecar":              {"broker/client", "schema", "sidecar/store"},
	"sidecar/store":        {"broker/secmem", "broker/wire", "schema"},
	"devcontainer":         {"broker/client", "schema"},
	"cmd":                  {},
	"cmd/internal/cli":     {},
	"cmd/keyhatchd":        {"broker", "broker/secmem", "cmd/internal/cli", "manifest", "schema"},
	"cmd/keyhatchctl":      {"broker/client", "broker/wire", "cmd/internal/cli", "manifest", "schema"},
	"cmd/keyhatch-sidecar": {"broker/client", "cmd/internal/cli", "schema", "sidecar", "sidecar/store"},
	"cmd/keyhatch":         {"broker/client", "cmd/internal/cli", "devcontainer", "schema"},

	"packaging/e2e/engine":       {},
	"packaging/e2e/systemd":      {}, // tests only
	"packaging/e2e/devcontainer": {}, // tests only
	"sidecar/store/storetest":    {"schema", "sidecar/store"},
}

// banned are what a package must not link, however far away.
var banned = map[string][]string{
	"cmd/keyhatch":         {module + "manifest", "github.com/fsnotify/", "github.com/coreos/go-systemd/", "github.com/invopop/jsonschema", module + "sidecar", module + "broker/secmem"},
	"cmd/keyhatchd":        {"github.com/fsnotify/", "github.com/invopop/jsonschema", module + "sidecar", module + "broker/client"},
	"cmd/keyhatchctl":      {"github.com/fsnotify/", "github.com/invopop/jsonschema", module + "sidecar", module + "broker/secmem"},
	"cmd/keyhatch-sidecar": {"github.com/invopop/jsonschema", module + "broker/secmem", module + "manifest"},
	"broker":               {"github.com/fsnotify/", "github.com/invopop/jsonschema"},
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// TestImports holds the directions of imports.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := json.NewDecoder(strings.NewReader(string(out)))
	found := 0
	for packages.More() {
		var p listed
		if err := packages.Decode(&p); err != nil {
			t.Fatal(err)
		}
		found++
		for _, problem := range wrongImports(p) {
			t.Error(problem)
		}
	}
	if found < len(allowed) {
		t.Errorf("%d packages were looked at, and the table has %d", found, len(allowed))
	}
}

func wrongImports(p listed) (problems []string) {
	name := strings.TrimPrefix(p.ImportPath, module)
	may, known := allowed[name]
	if !known {
		return []string{name + " has no place in the table of imports"}
	}
	for _, path := range p.Imports {
		if own, ok := strings.CutPrefix(path, module); ok && !slices.Contains(may, own) {
			problems = append(problems, name+" imports "+own)
		}
	}
	for _, dep := range p.Deps {
		for _, ban := range banned[name] {
			if strings.HasPrefix(dep, ban) {
				problems = append(problems, name+" links "+dep)
			}
		}
	}
	return problems
}

// TestImportsControl sees that wrong imports are found.
func TestImportsControl(t *testing.T) {
	for _, p := range []listed{
		{ImportPath: module + "schema", Imports: []string{module + "broker"}},
		{ImportPath: module + "unheard/of"},
		{ImportPath: module + "cmd/keyhatch", Deps: []string{"github.com/fsnotify/fsnotify"}},
	} {
		if len(wrongImports(p)) == 0 {
			t.Errorf("%+v is not noticed", p)
		}
	}
}
