package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// These are the paths in the container: of the directory with the project's socket, of the
// socket, and of the command keyhatch.
const (
	containerDir    = "/run/keyhatch"
	containerSocket = containerDir + "/broker.sock"
	containerClient = "/usr/local/bin/keyhatch"
)

// A mountCheck refuses mounts that would give the container of a project access to the admin
// socket, to another project, or to the declared projects. It finds mistakes and simple attacks.
// It is no sandbox for a hostile devcontainer.json, which can also run commands on the host and
// contain arguments for the container engine.
type mountCheck struct {
	folder      string // the project's directory
	projectDir  string // the directory of the project's socket
	projectsDir string // the directory of the declared projects, or ""
	ids         []schema.DevcontainerID
}

// checkMounts returns an error for the first mount that is refused. Otherwise, it returns the
// mounted paths outside of the project's directory, except the directory of the project's socket.
// A path that is not visible to this user is refused, because the container engine could see more.
func (c mountCheck) checkMounts(mounts []mount) (outside []string, err error) {
	for _, m := range mounts {
		switch {
		case m.isVolume() || m.source == c.devcontainerLink(devcontainerVariable):
			continue
		case strings.Contains(m.source, "$"):
			return nil, fmt.Errorf("cannot check the mount of %s: the path must not contain a variable", cli.PrintableWord(m.source))
		case !filepath.IsAbs(m.source):
			return nil, fmt.Errorf("cannot check the mount of %s: the path must be absolute: for a path in the project, use ${localWorkspaceFolder}", cli.PrintableWord(m.source))
		}
		// docker removes a/.. from the path before it follows symbolic links. Other engines do not.
		for _, path := range slices.Compact([]string{filepath.Clean(m.source), m.source}) {
			real, err := c.checkPath(path)
			if err != nil {
				return nil, err
			}
			if real != "" && !isBelow(real, c.folder) && !slices.Contains(outside, real) {
				outside = append(outside, real)
			}
		}
	}
	return outside, nil
}

// checkPath returns an error if a mounted path on the host is refused. Otherwise, it returns the
// path without symbolic links, or "" for the directory of the project's socket.
func (c mountCheck) checkPath(path string) (real string, err error) {
	real, err = resolve(path)
	// Compare also the texts of the paths, because this user may have no permission to resolve the
	// links in the runtime directory. With .., the text does not show where an unresolved link leads.
	isMissing := errors.Is(err, fs.ErrNotExist)
	if !strings.Contains(path, "..") && (c.isOwn(path) || (err == nil || isMissing) && c.isOwn(real)) {
		return "", nil
	}
	if realProject, projectErr := resolve(c.projectDir); projectErr == nil && err == nil && real == realProject {
		return "", nil
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err // the error contains the path already
	}
	switch {
	case overlaps(path, real, c.runtimeDir()):
		err = fmt.Errorf("the configuration of the dev container mounts %s, which would give the container access to the admin socket or to another project: remove this mount", cli.PrintableWord(path))
	case c.projectsDir != "" && overlaps(path, real, c.projectsDir):
		err = fmt.Errorf("the configuration of the dev container mounts %s, which would give the container access to the declared projects: remove this mount", cli.PrintableWord(path))
	case isMissing && real == filepath.Clean(path):
		err = nil // no link leads to this path
	case err != nil:
		err = fmt.Errorf("cannot check the mount of %s: %w", cli.PrintableWord(path), err)
	}
	return real, err
}

func (c mountCheck) runtimeDir() string { return filepath.Dir(filepath.Dir(c.projectDir)) }

func (c mountCheck) devcontainerLink(id string) string {
	return filepath.Join(c.runtimeDir(), devcontainersDir, id)
}

// isOwn reports whether path is a path of the directory of the project's socket.
func (c mountCheck) isOwn(path string) bool {
	return path == c.projectDir || slices.ContainsFunc(c.ids, func(id schema.DevcontainerID) bool { return path == c.devcontainerLink(string(id)) })
}

// overlaps reports whether a path is dir, below dir, or above dir. real is the path without
// symbolic links.
func overlaps(path, real, dir string) bool {
	realDir, _ := resolve(dir) // after an error, the result is still the best known path
	for _, p := range []string{path, real} {
		for _, d := range []string{dir, realDir} {
			if isBelow(p, d) || isBelow(d, p) {
				return true
			}
		}
	}
	return false
}

func isBelow(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// resolve returns the path without symbolic links. After an error, some links may remain.
func resolve(path string) (string, error) {
	paths, err := followLinks(path)
	return paths[len(paths)-1], err
}
