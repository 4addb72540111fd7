package broker_test

import (
	"encoding/json"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFilesDoNotFormCircles checks that the files of a package do not refer to each other
// in a circle, directly or through other files. Without circles, a reader can read the
// files in an order in which each file uses only declarations of earlier files.
func TestFilesDoNotFormCircles(t *testing.T) {
	out, err := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,GoFiles,Export", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	type goPackage struct {
		ImportPath, Dir, Export string
		GoFiles                 []string
	}
	var own []goPackage
	exports := map[string]string{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := decoder.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if strings.HasPrefix(p.ImportPath, module) {
			own = append(own, p)
		}
	}
	if len(own) < len(allowed)/2 {
		t.Fatalf("go list returned only %d packages of this module", len(own))
	}
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for _, p := range own {
		var files []*ast.File
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		references, err := fileReferences(p.ImportPath, fset, files, imports)
		if err != nil {
			t.Fatal(err)
		}
		for _, circle := range circles(references) {
			t.Errorf("%s: %s refer to each other in a circle", p.ImportPath, strings.Join(circle, ", "))
		}
	}
}

// TestCircleOfFilesIsFound checks that the function circles finds two files that refer to
// each other. One file contains a type, and the other file contains a method of this
// type.
func TestCircleOfFilesIsFound(t *testing.T) {
	fset := token.NewFileSet()
	var files []*ast.File
	for name, text := range map[string]string{
		"a.go": "package p; type T struct{}; func f(t T) { t.m() }",
		"b.go": "package p; func (T) m() {}",
		"c.go": "package p; var V = T{}",
	} {
		file, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	references, err := fileReferences("p", fset, files, nil)
	if err != nil {
		t.Fatal(err)
	}
	if found := circles(references); len(found) != 1 || !slices.Equal(found[0], []string{"a.go", "b.go"}) {
		t.Errorf("circles returned %v, want one circle of a.go and b.go", found)
	}
}

// fileReferences returns, for each file, the other files whose declarations it uses.
func fileReferences(path string, fset *token.FileSet, files []*ast.File, imports types.Importer) (map[string]map[string]bool, error) {
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: imports}
	pkg, err := config.Check(path, fset, files, info)
	if err != nil {
		return nil, err
	}
	references := map[string]map[string]bool{}
	for ident, object := range info.Uses {
		if object.Pkg() != pkg {
			continue
		}
		from := filepath.Base(fset.Position(ident.Pos()).Filename)
		to := filepath.Base(fset.Position(object.Pos()).Filename)
		if from != to {
			if references[from] == nil {
				references[from] = map[string]bool{}
			}
			references[from][to] = true
		}
	}
	return references, nil
}

// circles returns groups of files. In each group, each file refers to all other files of
// the group, directly or through other files.
func circles(references map[string]map[string]bool) (found [][]string) {
	reachable := map[string]map[string]bool{}
	for file := range references {
		reachable[file] = map[string]bool{}
		for next := slices.Collect(maps.Keys(references[file])); len(next) > 0; {
			to := next[len(next)-1]
			next = next[:len(next)-1]
			if !reachable[file][to] {
				reachable[file][to] = true
				next = slices.AppendSeq(next, maps.Keys(references[to]))
			}
		}
	}
	listed := map[string]bool{}
	for _, file := range slices.Sorted(maps.Keys(reachable)) {
		if !reachable[file][file] || listed[file] {
			continue
		}
		var circle []string
		for _, other := range slices.Sorted(maps.Keys(reachable)) {
			if reachable[file][other] && reachable[other][file] {
				circle = append(circle, other)
				listed[other] = true
			}
		}
		found = append(found, circle)
	}
	return found
}
