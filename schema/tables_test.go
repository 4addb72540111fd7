package schema_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// TestTablesAreComplete checks that every constant of five types is in a table, for
// example every Code in Codes. A constant that is not in a table would be missing from
// the generated schema and from other tests.
func TestTablesAreComplete(t *testing.T) {
	tables := map[string][]string{"Op": nil, "EventName": nil, "Code": nil, "Memory": nil, "InjectAs": {"env", "file"}}
	for _, op := range slices.Concat(schema.AdminOperations, schema.ProjectOperations) {
		tables["Op"] = append(tables["Op"], string(op.Op))
	}
	for _, event := range schema.AuditEvents {
		tables["EventName"] = append(tables["EventName"], string(event.Name))
	}
	for _, code := range schema.Codes {
		tables["Code"] = append(tables["Code"], string(code))
	}
	for _, memory := range schema.MemoryKinds {
		tables["Memory"] = append(tables["Memory"], string(memory))
	}
	declared := typedConstants(t)
	for kind, table := range tables {
		if len(declared[kind]) == 0 {
			t.Errorf("found no constants of type %s: the test reads the wrong files", kind)
		}
		for _, value := range declared[kind] {
			if !slices.Contains(table, value) {
				t.Errorf("%s %q is missing from its table", kind, value)
			}
		}
		slices.Sort(table)
		if kind != "Op" && len(slices.Compact(table)) != len(declared[kind]) {
			t.Errorf("the table of %s contains duplicates, or values for which there is no constant", kind)
		}
	}
}

// typedConstants returns the values of all string constants of the package that have a
// named type. The keys of the map are the names of these types.
func typedConstants(t *testing.T) map[string][]string {
	t.Helper()
	values := map[string][]string{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			kind, ok := spec.Type.(*ast.Ident)
			if !ok {
				return true
			}
			for _, v := range spec.Values {
				if lit, ok := v.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					text, err := strconv.Unquote(lit.Value)
					if err != nil {
						t.Fatal(err)
					}
					values[kind.Name] = append(values[kind.Name], text)
				}
			}
			return true
		})
	}
	return values
}

func TestOperationsAreDistinct(t *testing.T) {
	for _, operations := range [][]schema.Operation{schema.AdminOperations, schema.ProjectOperations} {
		seen := map[schema.Op]bool{}
		for _, op := range operations {
			if seen[op.Op] {
				t.Errorf("%s is listed twice for one socket", op.Op)
			}
			seen[op.Op] = true
		}
	}
	for _, admin := range schema.AdminOperations {
		for _, project := range schema.ProjectOperations {
			if admin.Op == project.Op && admin.Op != schema.OpPing {
				t.Errorf("%s is an op of both kinds of socket, but only ping may exist on both", admin.Op)
			}
		}
	}
}

// TestAuditEventsHoldCountsOnly checks that no audit event has a field that could contain
// the name or the value of a secret.
func TestAuditEventsHoldCountsOnly(t *testing.T) {
	for _, event := range schema.AuditEvents {
		for _, field := range leakingFields(reflect.TypeOf(event.Event), string(event.Name)) {
			t.Error(field)
		}
	}
}

// leakingFields lists the fields of a type that could contain the name or the value of a
// secret.
func leakingFields(t reflect.Type, path string) []string {
	switch t {
	case reflect.TypeFor[time.Time](), reflect.TypeFor[schema.EventName](),
		reflect.TypeFor[schema.Code](), reflect.TypeFor[schema.ProjectName]():
		return nil // these types cannot contain the name or the value of a secret
	}
	switch t.Kind() {
	case reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return nil
	case reflect.Struct:
		var leaking []string
		for field := range t.Fields() {
			leaking = append(leaking, leakingFields(field.Type, path+"."+field.Name)...)
		}
		return leaking
	}
	// A field of any other type could contain a secret. For example, a slice of numbers
	// could contain the bytes of a secret.
	return []string{path + " is a " + t.String()}
}

func TestLeakingFieldsAreFound(t *testing.T) {
	type inner struct{ Deep string }
	for name, v := range map[string]any{
		"string": struct{ X string }{}, "bytes": struct{ X []byte }{}, "array": struct{ X [4]byte }{},
		"any": struct{ X any }{}, "map": struct{ X map[schema.ProjectName]int }{},
		"secret name": struct{ X schema.SecretName }{}, "error": struct{ X error }{},
		"pointer": struct{ X *string }{}, "op": struct{ X schema.Op }{},
		"unexported": struct{ x string }{}, "slice": struct{ X []schema.Code }{},
		"nested": struct{ X inner }{}, "embedded": struct{ inner }{},
	} {
		if len(leakingFields(reflect.TypeOf(v), name)) != 1 {
			t.Errorf("leakingFields accepts a field of kind %s", name)
		}
	}
}
