package broker_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/keyhatch/keyhatch/"

// allowed lists, for each package of this module, the other packages of the module that
// it may import. If you add a package, add it to this table.
var allowed = map[string][]string{
	"schema":          {},
	"schema/gen":      {"schema"},
	"manifest":        {"schema"},
	"broker/wire":     {"schema"},
	"broker/secmem":   {"schema"},
	"broker/client":   {"broker/wire", "schema"},
	"broker/audit":    {"broker/wire", "schema"},
	"broker/fdstore":  {"broker/wire", "schema"},
	"broker/rundir":   {"broker/wire", "schema"},
	"broker/endpoint": {"broker/wire", "schema"},
	"broker/keyring":  {"broker/secmem", "broker/wire", "schema"},
	"broker/project":  {"broker/audit", "broker/endpoint", "broker/keyring", "broker/wire", "manifest", "schema"},
	"broker": {
		"broker/audit", "broker/endpoint", "broker/fdstore", "broker/keyring", "broker/project",
		"broker/rundir", "broker/secmem", "broker/wire", "manifest", "schema",
	},
	"sidecar":              {"broker/client", "schema", "sidecar/store"},
	"sidecar/store":        {"broker/secmem", "broker/wire", "schema"},
	"devcontainer":         {"broker/client", "schema"},
	"cmd":                  {},
	"cmd/internal/cli":     {"schema"},
	"cmd/keyhatchd":        {"broker", "broker/audit", "broker/rundir", "broker/secmem", "cmd/internal/cli", "manifest", "schema"},
	"cmd/keyhatchctl":      {"broker/client", "broker/wire", "cmd/internal/cli", "manifest", "schema"},
	"cmd/keyhatch-sidecar": {"broker/client", "broker/secmem", "cmd/internal/cli", "schema", "sidecar", "sidecar/store"},
	"cmd/keyhatch":         {"broker/client", "cmd/internal/cli", "devcontainer", "devcontainer/credential", "schema"},

	"devcontainer/credential":    {"devcontainer", "schema"},
	"packaging/attack":           {"broker/client", "broker/wire", "packaging/proc", "schema"},
	"packaging/bench":            {"broker/client", "broker/wire", "manifest", "packaging/proc", "schema"},
	"packaging/e2e/engine":       {},
	"packaging/e2e/systemd":      {}, // contains only tests
	"packaging/e2e/devcontainer": {}, // contains only tests
	"packaging/proc":             {},
	"packaging/soak":             {"broker/client", "packaging/proc", "schema"},
	"packaging/testenv":          {},
	"sidecar/store/storetest":    {"schema", "sidecar/store"},
}

// banned lists, for some packages of this module, the packages that they must not import
// directly or indirectly. An entry that ends with a slash is a prefix.
var banned = map[string][]string{
	"cmd/keyhatch":         {module + "manifest", "github.com/fsnotify/", "github.com/coreos/go-systemd/", "github.com/invopop/jsonschema", module + "sidecar", module + "broker/secmem"},
	"cmd/keyhatchd":        {"github.com/fsnotify/", "github.com/invopop/jsonschema", module + "sidecar", module + "broker/client"},
	"cmd/keyhatchctl":      {"github.com/fsnotify/", "github.com/invopop/jsonschema", module + "sidecar", module + "broker/secmem"},
	"cmd/keyhatch-sidecar": {"github.com/invopop/jsonschema", module + "manifest"},
	"sidecar/store":        {"github.com/fsnotify/", "github.com/coreos/go-systemd/", module + "broker/client"},
	"broker":               {"github.com/fsnotify/", "github.com/invopop/jsonschema"},
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// TestImports checks the imports of every package against the tables allowed and banned.
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
		t.Errorf("checked %d packages, but the table of allowed imports has %d packages", found, len(allowed))
	}
}

func wrongImports(p listed) (problems []string) {
	name := strings.TrimPrefix(p.ImportPath, module)
	may, known := allowed[name]
	if !known {
		return []string{name + " is missing from the table of allowed imports"}
	}
	for _, path := range p.Imports {
		if own, ok := strings.CutPrefix(path, module); ok && !slices.Contains(may, own) {
			problems = append(problems, name+" imports "+own+", which is not allowed")
		}
	}
	for _, dep := range p.Deps {
		for _, ban := range banned[name] {
			if strings.HasPrefix(dep, ban) {
				problems = append(problems, name+" imports "+dep+" directly or indirectly, which is banned")
			}
		}
	}
	return problems
}

// TestProjectOnlyReadsKeyring checks that package project cannot replace or clear the
// secrets. The package may use only those types and constants of package keyring that
// cannot change a keyring.
func TestProjectOnlyReadsKeyring(t *testing.T) {
	files, err := filepath.Glob("project/*.go")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for node := range ast.Preorder(file) {
			if selector, ok := node.(*ast.SelectorExpr); ok {
				if pkg, ok := selector.X.(*ast.Ident); ok && pkg.Name == "keyring" {
					used[selector.Sel.Name] = true
				}
			}
		}
	}
	if !used["View"] {
		t.Fatal("this test found no use of keyring.View in package project")
	}
	for name := range used {
		if !slices.Contains([]string{"View", "Snapshot", "Value"}, name) {
			t.Errorf("package project uses keyring.%s, which is not allowed", name)
		}
	}
}

// TestImportsControl checks that the function wrongImports reports imports that are not
// allowed.
func TestImportsControl(t *testing.T) {
	for _, p := range []listed{
		{ImportPath: module + "schema", Imports: []string{module + "broker"}},
		{ImportPath: module + "unheard/of"},
		{ImportPath: module + "broker/project", Imports: []string{module + "broker"}},
		{ImportPath: module + "cmd/keyhatch", Deps: []string{"github.com/fsnotify/fsnotify"}},
	} {
		if len(wrongImports(p)) == 0 {
			t.Errorf("wrongImports accepts imports that are not allowed: %+v", p)
		}
	}
}
