package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// A notServedError means that the broker does not serve a project that is declared, or that
// was registered before the broker restarted.
type notServedError struct {
	project schema.ProjectStatus // only Name, ProjectPath (if known), and Declared are set
	err     *cli.Error
}

func (e *notServedError) Error() string { return e.err.Error() }
func (e *notServedError) Unwrap() error { return e.err }

// nameOrDirHelp is the end of the help text of commands with the argument NAME|DIR.
const nameOrDirHelp = `The argument is the name of a project or the path of its directory. The argument is a
path if it contains a slash, for example ./api, or if it is "." or "..".`

// A changedProject is the output of declare and unregister with --json.
type changedProject struct {
	OK          bool               `json:"ok"`
	Name        schema.ProjectName `json:"name"`
	ProjectPath string             `json:"project_path,omitempty"` // absent if the broker does not know the path
}

// findProject returns the registered project whose name or directory is arg. An argument is the
// path of a directory only if it is . or .., or contains a slash, because untrusted code can
// create a directory or a link with the name of a project. If the broker does not serve the
// project, the error is a *notServedError.
//
// command is the subcommand with its flags. The hint repeats them.
func findProject(ctx context.Context, admin *client.Admin, o *globalOptions, arg string, command ...string) (schema.ProjectStatus, error) {
	status, err := admin.Status(ctx)
	if err != nil {
		return schema.ProjectStatus{}, err
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return schema.ProjectStatus{}, err
	}
	isPath := arg == "." || arg == ".." || strings.Contains(arg, "/")
	if isPath {
		paths, _ := followLinks(path) // ignore the error: if the directory was deleted, the broker still knows its path
		path = paths[len(paths)-1]
		replaced := findReplaced(status, paths)
		if replaced == nil {
			replaced = findReplacedFolder(ctx, admin, status, paths)
		}
		if replaced != nil {
			return schema.ProjectStatus{}, &cli.Error{Err: replaced,
				Hint: "to use project " + string(replaced.project.Name) + ": " + o.command(append(command, string(replaced.project.Name))...)}
		}
	}
	matches := func(projectName, projectPath string) bool {
		return isPath && projectPath == path || !isPath && projectName == arg
	}
	for _, p := range status.Projects {
		if matches(string(p.Name), p.ProjectPath) {
			return p, nil
		}
	}
	for _, p := range status.Problems {
		// With ProblemNotDeclared, the broker serves the project, but the declaration of the
		// project is different.
		if p.Project != "" && p.Problem != schema.ProblemNotDeclared && matches(p.Project, p.ProjectPath) {
			return schema.ProjectStatus{}, newNotServedError(p, status, o)
		}
	}
	failure := &cli.Error{Err: fmt.Errorf("project %s is not registered", cli.PrintableWord(arg)), Hint: o.listProjectsHint()}
	info, err := os.Stat(path)
	if err == nil && info.IsDir() && !isPath {
		failure.Hint += "\nto use the directory of this name: " + cli.ShellQuote("./"+arg)
	} else if err == nil && info.IsDir() {
		failure.Hint += "\nregister the project in this directory: " + o.command("register", path)
	} else if err != nil && isPath {
		failure.Err = fmt.Errorf("cannot find a project in %s: %w", cli.PrintableWord(arg), errors.Unwrap(err))
	}
	return schema.ProjectStatus{}, failure
}

func newNotServedError(p schema.ProjectProblem, status schema.StatusResponse, o *globalOptions) *notServedError {
	trees := newTreeReader(o, status)
	defer trees.close()
	notServed := &notServedError{
		project: schema.ProjectStatus{Name: schema.ProjectName(p.Project), ProjectPath: p.ProjectPath, Declared: p.Problem == schema.ProblemNotApplied},
		err:     &cli.Error{Err: errors.New(cli.Printable(p.Message)), Hint: trees.notRestoredFix(p, o)},
	}
	if notServed.project.Declared {
		notServed.err = &cli.Error{
			Err:  fmt.Errorf("project %s is declared, but not served: %s", cli.Printable(p.Project), cli.Printable(p.Message)),
			Hint: "find the cause and the fix: " + o.command("doctor"),
		}
	}
	return notServed
}
