package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// checkRegistration asks the broker whether it would accept a registration, and returns an error
// if not. If the broker would refuse the registration because of another project, the error has a
// hint, and usually contains the path of the other project.
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
			err = fmt.Errorf("cannot register %s: the name %s is in use for %s", cli.PrintableWord(dir.path), other.Name, cli.PrintableWord(other.ProjectPath))
			// Suggest a move only if the path contains no symbolic link: hostile code can create
			// a link to any project, and the link would choose the project that gets the name and
			// its mounts. If the proposal replaces a registration of this path, no project was
			// moved to this path.
			if _, statErr := os.Stat(other.ProjectPath); errors.Is(statErr, fs.ErrNotExist) && dir.typed == dir.path && !request.Replace {
				return &cli.Error{
					Err:  fmt.Errorf("%w, which no longer exists", err),
					Hint: "if you moved the project, " + removeContainersOf(filepath.Dir(other.SocketPath)) + ", and then run: " + moveCommand(o, other, dir.typed, options, status),
				}
			}
			break
		}
		if folder := sharedFolder(ctx, admin, other.Name, dir); folder != "" {
			return folderInUse(o, other, dir, folder, options, status)
		}
	}
	if folder, socket := reservedFolder(ctx, admin, request, dir); folder != "" {
		return &cli.Error{Err: err, Hint: folderHint(o, dir, folder, socket, options, status, "no container mounts the links that this command removes")}
	}
	return &cli.Error{Err: err, Hint: otherNameHint(ctx, admin, o, request, dir, options, status)}
}

// moveCommand returns the command that unregisters the project p and registers it at another
// path. The project keeps its name, its uids, and its declaration, and also gets the uids in
// options. The command removes the link with the project's name, because the link still leads to
// the old path. Otherwise the broker would refuse the name for another path.
func moveCommand(o *globalOptions, p schema.ProjectStatus, newPath string, options registerOptions, status schema.StatusResponse) string {
	options.name, options.persist = string(p.Name), options.persist || p.Declared
	for _, uid := range p.AllowUIDs {
		options.uids = union(options.uids, []uint{uint(uid)})
	}
	return unregisterShellCommand(o, p, status) + " && " + removeLinkCommand(filepath.Dir(p.SocketPath)) + " && " + o.registerCommand(newPath, options, status)
}

// removeLinkCommand returns the command that removes a link in the runtime directory. Each hint with
// this command must begin with the text of removeContainersOf: after the next registration with the
// same name, a container that mounts the link would get the secrets of the new project.
func removeLinkCommand(link string) string {
	return sudoToChange(filepath.Dir(link)) + cli.QuoteWords([]string{"rm", link})
}

func removeContainersOf(link string) string {
	return "remove the containers that mount " + cli.ShellQuote(link)
}

// folderInUse returns the error for a folder whose dev containers belong to another project.
func folderInUse(o *globalOptions, other schema.ProjectStatus, dir projectDir, folder string, options registerOptions, status schema.StatusResponse) error {
	return &cli.Error{
		Err: fmt.Errorf("cannot register %s: the dev containers in %s belong to project %s in %s",
			cli.PrintableWord(dir.path), cli.PrintableWord(folder), other.Name, cli.PrintableWord(other.ProjectPath)),
		Hint: folderHint(o, dir, folder, other.SocketPath, options, status, "project "+string(other.Name)+" is no longer in this folder, and no container mounts a link of this folder", unregisterShellCommand(o, other, status)),
	}
}

// folderHint returns the hint for a folder whose links in the runtime directory lead to another
// project. The broker does not change these links, so the hint contains commands that remove the
// links and register the project. The operator may run these commands only if condition is true.
// socket is the path of a socket in the same runtime directory.
func folderHint(o *globalOptions, dir projectDir, folder, socket string, options registerOptions, status schema.StatusResponse, condition string, commands ...string) string {
	if folder != dir.path {
		// Hostile code may have replaced the link, so the command does not contain the path to which
		// the link leads.
		return "register the project by the path of its directory, without symbolic links: " + o.registerCommand("DIR", options, status)
	}
	linksDir := filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(socket))), devcontainersDir)
	remove := []string{"rm", "-f"}
	ids, _ := devcontainerIDs(folder)
	for _, id := range ids {
		link := filepath.Join(linksDir, string(id))
		if _, err := os.Lstat(link); !errors.Is(err, fs.ErrNotExist) { // the link exists, or this user cannot see it
			remove = append(remove, link)
		}
	}
	commands = append(commands, sudoToChange(linksDir)+cli.QuoteWords(remove), o.registerCommand(dir.typed, options, status))
	return fmt.Sprintf("if %s, run: %s", condition, strings.Join(commands, " && "))
}

// reservedFolder returns a path of dir (see projectDir.folders) that is reserved for an
// unregistered project: the link of one of its dev container IDs still leads to the unregistered
// project, so the broker refuses this ID. reservedFolder also returns the path that the socket of
// the new project will have. It returns "" if no path is reserved, or if the broker would refuse
// the registration also without dev container IDs.
func reservedFolder(ctx context.Context, admin *client.Admin, request schema.RegisterRequest, dir projectDir) (folder, socket string) {
	request.DevcontainerIDs = nil
	accepted, err := admin.Register(ctx, request)
	if err != nil {
		return "", "" // the broker refuses the project also without dev container IDs
	}
	for _, folder := range dir.folders() {
		request.DevcontainerIDs, _ = devcontainerIDs(folder)
		if _, err := admin.Register(ctx, request); client.CodeOf(err) == schema.CodeProjectExists {
			return folder, accepted.SocketPath
		}
	}
	return "", ""
}

// sharedFolder returns a path of dir (see projectDir.folders) that has a dev container ID of
// another project, whose name is other. If there is no such path, or if the broker does not
// answer, the result is "".
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

// numberedName returns a name with a number at its end. If necessary, it shortens the name.
func numberedName(name schema.ProjectName, n int) schema.ProjectName {
	suffix := fmt.Sprintf("-%d", n)
	return name[:min(len(name), maxProjectName-len(suffix))] + schema.ProjectName(suffix)
}

// otherNameHint suggests a name that the broker accepts. If it finds no such name, it suggests to
// list the registered projects.
func otherNameHint(ctx context.Context, admin *client.Admin, o *globalOptions, request schema.RegisterRequest, dir projectDir, options registerOptions, status schema.StatusResponse) string {
	name := request.Name
	for n := 2; n < 100; n++ {
		request.Name = numberedName(name, n)
		if _, err := admin.Register(ctx, request); err != nil {
			continue
		}
		if options.persist && checkDeclaredPath(status, request.Name, request) != nil || checkUndeclaredName(status, request) != nil {
			continue
		}
		options.name = string(request.Name)
		return "choose another name: " + o.registerCommand(dir.typed, options, status)
	}
	return o.listProjectsHint() // the broker refuses the project for another reason than its name
}

// unregisterShellCommand returns the command that unregisters a project. If the project
// is declared, the command also removes its declaration, so that the broker does not
// register the project again.
func unregisterShellCommand(o *globalOptions, p schema.ProjectStatus, status schema.StatusResponse) string {
	args := []string{"unregister"}
	if p.Declared {
		args = append(args, "--persist")
	}
	return o.sudoCommand(sudoToDeclare(p.Declared, status), append(args, string(p.Name))...)
}
