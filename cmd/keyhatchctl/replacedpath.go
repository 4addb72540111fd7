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
	"syscall"

	"github.com/keyhatch/keyhatch/broker/client"
	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// maxLinks is the maximum number of symbolic links in a path, as in the kernel.
const maxLinks = 40

// followLinks returns paths that lead to the same directory. The first path is path, which must
// be absolute. In each further path, one more symbolic link is replaced with its target, so the
// last path contains no symbolic link. After an error, for example because the directory does not
// exist, the last path is the one that followLinks could not follow. followLinks refuses paths on
// procfs, because links there, such as /proc/self/cwd, lead elsewhere in each process.
func followLinks(path string) (paths []string, err error) {
	paths = []string{filepath.Clean(path)}
	resolved, rest := "/", strings.Split(path, "/")
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." || name == ".." {
			resolved = filepath.Join(resolved, name)
			continue
		}
		next := filepath.Join(resolved, name)
		info, err := os.Lstat(next)
		if err != nil {
			return paths, err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			if len(rest) > 0 && !info.IsDir() {
				return paths, &fs.PathError{Op: "lstat", Path: next, Err: syscall.ENOTDIR}
			}
			var statfs unix.Statfs_t
			if err := unix.Statfs(next, &statfs); err == nil && statfs.Type == unix.PROC_SUPER_MAGIC {
				return paths, &fs.PathError{Op: "lstat", Path: next, Err: errors.New("the path leads through procfs")}
			}
			resolved = next
			continue
		}
		target, err := os.Readlink(next)
		if err != nil {
			return paths, err
		}
		if len(paths) > maxLinks {
			return paths, &fs.PathError{Op: "lstat", Path: path, Err: errors.New("too many symbolic links")}
		}
		if filepath.IsAbs(target) {
			resolved = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
		paths = append(paths, filepath.Join(resolved, filepath.Join(rest...)))
	}
	return paths, nil
}

// A replacedPathError means that a project was registered at a path that now contains a symbolic
// link and leads to another directory. Untrusted code can create such a link. The command must
// not use the other directory, because the operator means the registered project.
type replacedPathError struct {
	typed   string               // the path that the operator typed
	project schema.ProjectStatus // only Name, ProjectPath, and Declared are set
	target  string               // the directory to which the path leads now
	// isFolder means that the typed path was a symbolic link already at the registration.
	isFolder bool
}

func (e *replacedPathError) Error() string {
	if e.isFolder {
		return fmt.Sprintf("cannot use %s: project %s was registered by this path, but the path leads to %s now",
			cli.PrintableWord(e.typed), e.project.Name, cli.PrintableWord(e.target))
	}
	return fmt.Sprintf("cannot use %s: project %s is registered at %s, but this path leads to %s now",
		cli.PrintableWord(e.typed), e.project.Name, cli.PrintableWord(e.project.ProjectPath), cli.PrintableWord(e.target))
}

// findReplaced returns an error if one of the paths before the last is the path of a registered
// or declared project, because this path contains a symbolic link now. Otherwise it returns nil.
// paths is a result of followLinks.
func findReplaced(status schema.StatusResponse, paths []string) *replacedPathError {
	last := paths[len(paths)-1]
	for _, path := range paths[:len(paths)-1] {
		if path == last {
			continue
		}
		for _, p := range status.Projects {
			if p.ProjectPath == path {
				return &replacedPathError{typed: paths[0], project: p, target: last}
			}
		}
		for _, p := range status.Problems {
			if p.ProjectPath == path && schema.ValidProjectName(p.Project) {
				project := schema.ProjectStatus{Name: schema.ProjectName(p.Project), ProjectPath: path, Declared: p.Problem == schema.ProblemNotApplied}
				return &replacedPathError{typed: paths[0], project: project, target: last}
			}
		}
	}
	return nil
}

// findReplacedFolder returns an error if the operator registered a project by the symbolic link
// paths[0], and somebody has replaced this link, so that it leads to another directory now. The
// project is the one with the dev container ID of paths[0]. If there is no such project,
// findReplacedFolder returns nil. paths is a result of followLinks.
func findReplacedFolder(ctx context.Context, admin *client.Admin, status schema.StatusResponse, paths []string) *replacedPathError {
	typed, last := paths[0], paths[len(paths)-1]
	if typed == last {
		return nil
	}
	id := devcontainerID(typed, filepath.Join(typed, ".devcontainer", "devcontainer.json"))
	for _, p := range status.Projects {
		if p.ProjectPath == last {
			continue
		}
		if registered, err := admin.Inspect(ctx, p.Name); err == nil && slices.Contains(registered.DevcontainerIDs, id) {
			return &replacedPathError{typed: typed, project: p, target: last, isFolder: true}
		}
	}
	return nil
}
