package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// A notServedError means that the broker does not serve a project that is declared, or that
// was registered before the broker restarted.
type notServedError struct {
	project schema.ProjectStatus // only the name, the path if it is known, and declared
	err     *cli.Error
}

func (e *notServedError) Error() string { return e.err.Error() }
func (e *notServedError) Unwrap() error { return e.err }

// nameOrDirHelp is the help text about an argument NAME|DIR.
const nameOrDirHelp = `The argument is the name of a project or the path of its directory. If a project has
this name, the argument is the name. To use a directory, write a slash, for example ./api.`

// findProject returns the registered project whose name or directory is arg. If arg is both a
// name and a directory, findProject uses the name.
func findProject(ctx context.Context, admin *client.Admin, arg string, o *globalOptions) (schema.ProjectStatus, error) {
	status, err := admin.Status(ctx)
	if err != nil {
		return schema.ProjectStatus{}, err
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return schema.ProjectStatus{}, err
	}
	// If the directory was deleted, the project can still be found by its path.
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	for _, matches := range []func(schema.ProjectStatus) bool{
		func(p schema.ProjectStatus) bool { return string(p.Name) == arg },
		func(p schema.ProjectStatus) bool { return p.ProjectPath == path },
	} {
		if i := slices.IndexFunc(status.Projects, matches); i >= 0 {
			return status.Projects[i], nil
		}
	}
	for _, p := range status.Problems {
		if p.Project == "" || p.Project != arg && p.ProjectPath != path {
			continue
		}
		notServed := &notServedError{
			project: schema.ProjectStatus{Name: schema.ProjectName(p.Project), ProjectPath: p.ProjectPath, Declared: p.Problem == schema.ProblemNotApplied},
			err:     &cli.Error{Err: errors.New(cli.Printable(p.Message)), Hint: notRestoredFix(p, o)},
		}
		if notServed.project.Declared {
			notServed.err = &cli.Error{
				Err:  fmt.Errorf("project %s is declared, but not served: %s", cli.Printable(p.Project), cli.Printable(p.Message)),
				Hint: "find the cause and the fix: " + o.command("doctor"),
			}
		}
		return schema.ProjectStatus{}, notServed
	}
	failure := &cli.Error{Err: fmt.Errorf("project %q is not registered", arg), Hint: o.listProjectsHint()}
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		failure.Hint += "\nregister the project in this directory: " + o.command("register", path)
	} else if err != nil && strings.Contains(arg, "/") { // a name contains no slash
		failure.Err = fmt.Errorf("cannot find a project in %s: %w", cli.Printable(arg), errors.Unwrap(err))
	}
	return schema.ProjectStatus{}, failure
}
