package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// checkRegistration asks the broker whether it would accept a registration. If the broker
// would refuse the registration because of another project, the error contains the path of
// this project and a hint.
func checkRegistration(ctx context.Context, admin *client.Admin, o *globalOptions, request schema.RegisterRequest, dir projectDir, options registerOptions, status schema.StatusResponse) error {
	request.DryRun = true
	_, err := admin.Register(ctx, request)
	if client.CodeOf(err) != schema.CodeProjectExists {
		return err
	}
	for _, other := range status.Projects {
		if other.ProjectPath == dir.path {
			continue
		}
		if other.Name == request.Name {
			err = fmt.Errorf("cannot register %s: the name %s is in use for %s", cli.Printable(dir.path), other.Name, cli.Printable(other.ProjectPath))
			if _, statErr := os.Stat(other.ProjectPath); errors.Is(statErr, fs.ErrNotExist) && !isRegisteredPath(dir.path, status) {
				return &cli.Error{
					Err:  fmt.Errorf("%w, which no longer exists", err),
					Hint: "if you moved the project, run: " + moveCommand(o, other, dir.typed, options, status),
				}
			}
			break
		}
		if folder := sharedFolder(ctx, admin, other.Name, dir); folder != "" {
			return folderInUse(o, other, dir, folder, options, status)
		}
	}
	return &cli.Error{Err: err, Hint: otherNameHint(ctx, admin, o, request, dir, options, status)}
}

// isRegisteredPath reports whether a project is registered at a path.
func isRegisteredPath(path string, status schema.StatusResponse) bool {
	return slices.ContainsFunc(status.Projects, func(p schema.ProjectStatus) bool { return p.ProjectPath == path })
}

// moveCommand returns the command that registers the project p at another path instead, with
// the same name and persistence, and with the same uids in addition to those in options. The
// command removes the link with the name, because the link leads to the directory of the old
// path, and no project at another path can use the name of the link.
func moveCommand(o *globalOptions, p schema.ProjectStatus, newPath string, options registerOptions, status schema.StatusResponse) string {
	link := filepath.Dir(p.SocketPath)
	options.name, options.persist = string(p.Name), options.persist || p.Declared
	for _, uid := range p.AllowUIDs {
		options.uids = union(options.uids, []uint{uint(uid)})
	}
	return unregisterShellCommand(o, p, status) + " && " + sudoToChange(filepath.Dir(link)) + cli.QuoteWords([]string{"rm", link}) +
		" && " + o.registerCommand(newPath, options, status)
}

// folderInUse returns the error for a folder whose dev containers belong to another project.
func folderInUse(o *globalOptions, other schema.ProjectStatus, dir projectDir, folder string, options registerOptions, status schema.StatusResponse) error {
	hint := "register the project by its own path: " + o.registerCommand(dir.path, options, status)
	if folder == dir.path {
		hint = fmt.Sprintf("if the other project is no longer in this folder, run: %s && %s", unregisterShellCommand(o, other, status), o.registerCommand(dir.typed, options, status))
	}
	return &cli.Error{
		Err: fmt.Errorf("cannot register %s: the dev containers in %s belong to project %s in %s",
			cli.Printable(dir.path), cli.Printable(folder), other.Name, cli.Printable(other.ProjectPath)),
		Hint: hint,
	}
}

// sharedFolder returns a folder of dir whose dev containers belong to the project other, or "".
func sharedFolder(ctx context.Context, admin *client.Admin, other schema.ProjectName, dir projectDir) string {
	registered, err := admin.Inspect(ctx, other)
	if err != nil {
		return ""
	}
	for _, folder := range dir.folders() {
		ids, _ := devcontainerIDs(folder)
		if slices.ContainsFunc(ids, func(id schema.DevcontainerID) bool {
			return slices.Contains(registered.DevcontainerIDs, id)
		}) {
			return folder
		}
	}
	return ""
}

// maxProjectName is the length of the longest name that matches schema.ProjectNamePattern.
const maxProjectName = 64

// otherNameHint suggests a name that the broker accepts.
func otherNameHint(ctx context.Context, admin *client.Admin, o *globalOptions, request schema.RegisterRequest, dir projectDir, options registerOptions, status schema.StatusResponse) string {
	name := request.Name
	for n := 2; n < 100; n++ {
		suffix := fmt.Sprintf("-%d", n)
		request.Name = name[:min(len(name), maxProjectName-len(suffix))] + schema.ProjectName(suffix)
		if _, err := admin.Register(ctx, request); err != nil {
			continue
		}
		if options.persist && checkDeclaredPath(status, request.Name, request) != nil {
			continue
		}
		options.name = string(request.Name)
		return "choose another name: " + o.registerCommand(dir.typed, options, status)
	}
	return o.listProjectsHint() // another cause than the name
}

// unregisterShellCommand returns the command that unregisters a project for good.
func unregisterShellCommand(o *globalOptions, p schema.ProjectStatus, status schema.StatusResponse) string {
	args := []string{"unregister"}
	if p.Declared {
		args = append(args, "--persist")
	}
	return o.sudoCommand(sudoToDeclare(p.Declared, status), append(args, string(p.Name))...)
}
