package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// An unappliedDeclarationError means that a declaration of the project's path is not in effect,
// because the declaration has another name or differs from the registration. keyhatchctl then
// refuses to change the project. Otherwise the change would overwrite the declaration, or the
// broker would undo the change when it applies the declaration.
type unappliedDeclarationError struct {
	project  schema.ProjectName
	declared schema.ProjectName // the name of the declaration
	file     string             // the path of the declaration
	// isDuplicate means that the project also has a declaration with its own name.
	isDuplicate bool
}

func (e *unappliedDeclarationError) Error() string {
	if e.declared != e.project {
		return fmt.Sprintf("cannot change project %s: %s declares the same path", e.project, cli.PrintableWord(e.file))
	}
	return fmt.Sprintf("cannot change project %s: the broker has not applied the declaration %s", e.project, cli.PrintableWord(e.file))
}

// hint returns commands that apply the declaration, and commands that keep the registration that
// the broker serves.
func (e *unappliedDeclarationError) hint(o *globalOptions, process brokerProcess) string {
	dir := filepath.Dir(e.file)
	keep := "remove the declaration: " + sudoToChange(dir) + cli.QuoteWords([]string{"rm", e.file})
	if e.declared == e.project {
		keep = "replace the declaration with the registration that the broker serves: " + o.sudoCommand(sudoToChange(dir), "declare", string(e.project))
	}
	if e.isDuplicate { // the broker never applies this declaration, because another declaration of the same project path is in effect
		return keep
	}
	return "apply the declaration first: " + process.applyDeclarationsCommand() + "\nor " + keep
}

// checkApplied returns an unappliedDeclarationError if a declaration of the project's path has
// another name than the project, or if accepts returns false for the declaration with the
// project's name.
func checkApplied(status schema.StatusResponse, registered schema.InspectResponse, accepts func(manifest.Declaration) bool) error {
	declarations := declarationsOf(status, registered.ProjectPath)
	hasName := func(d manifest.Declaration) bool { return d.Name == registered.Name }
	isDeclared := slices.ContainsFunc(declarations, hasName)
	for _, d := range declarations {
		if !hasName(d) || !accepts(d) {
			return &unappliedDeclarationError{
				project: registered.Name, declared: d.Name, file: filepath.Join(status.ProjectsDir, string(d.Name)+".yaml"),
				isDuplicate: isDeclared && !hasName(d),
			}
		}
	}
	return nil
}

// declarationsOf returns the declarations of a path. It ignores the files that this user cannot
// read, and invalid files, which the broker does not serve.
func declarationsOf(status schema.StatusResponse, path string) (declarations []manifest.Declaration) {
	if status.ProjectsDir == "" {
		return nil
	}
	entries, _ := os.ReadDir(status.ProjectsDir)
	for _, entry := range entries {
		name, isYAML := strings.CutSuffix(entry.Name(), ".yaml")
		if !isYAML || !schema.ValidProjectName(name) {
			continue
		}
		d, err := readDeclaration(filepath.Join(status.ProjectsDir, entry.Name()), schema.ProjectName(name))
		if err == nil && d.Path == path {
			declarations = append(declarations, d)
		}
	}
	return declarations
}
