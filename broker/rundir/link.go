package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyhatch/keyhatch/schema"
)

// A link is a symlink to the directory of a project. Containers mount this directory through
// the link.
type link struct {
	place  string // relative to the runtime directory
	target string
}

// NameLink returns the path of the link with a project's name.
func (d *Dir) NameLink(name schema.ProjectName) string {
	return filepath.Join(d.path, "projects", string(name))
}

// DevcontainerLink returns the path of the link with a dev container ID. A dev container can
// mount this link before the name of its project is known.
func (d *Dir) DevcontainerLink(id schema.DevcontainerID) string {
	return filepath.Join(d.path, "devcontainers", string(id))
}

func nameLink(name schema.ProjectName, projectPath string) link {
	return link{filepath.Join("projects", string(name)), directoryName(projectPath)}
}

func devcontainerLink(id schema.DevcontainerID, projectPath string) link {
	return link{filepath.Join("devcontainers", string(id)), filepath.Join("..", projectDir(projectPath))}
}

// CheckName returns an error if the broker cannot use a name for the project at a path. The
// error is ErrInUse if the link with this name leads to the directory of another project,
// even if that project is no longer registered. If the broker changed the link, a container
// of the old project that mounts the link would have access to the secrets of the new project
// after the next start of the container. The error can be ErrBlocked.
func (d *Dir) CheckName(name schema.ProjectName, projectPath string) error {
	// Clients connect to the socket through the link, so this path must also be short enough.
	if socket := d.NamedSocket(name); len(socket) > maxSocketPath {
		return errTooLong(socket)
	}
	return d.checkLink(nameLink(name, projectPath))
}

// CheckDevcontainer does the same as CheckName, but for a dev container ID.
func (d *Dir) CheckDevcontainer(id schema.DevcontainerID, projectPath string) error {
	return d.checkLink(devcontainerLink(id, projectPath))
}

func (d *Dir) checkLink(l link) error {
	path := filepath.Join(d.path, l.place)
	target, err := os.Readlink(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && target == l.target:
		return nil
	case err == nil:
		return fmt.Errorf("%w: %s", ErrInUse, path)
	}
	found, err := d.children.run(operation{Name: opCount, Dir: l.place}, -1)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case found.Entries < 0:
		return fmt.Errorf("%s is not a link that the broker created: remove it", path)
	case found.Entries > 0:
		return fmt.Errorf("%s is a directory with content, probably because a container was started before the project was registered: remove the directory, then remove and create again the containers that mount the directory", path)
	}
	return nil
}

// Link creates the links with the name and the dev container IDs of the project at a path, if
// they do not exist. Check all links first (CheckName and CheckDevcontainer). If an empty
// directory exists at the path of a link, Link renames the directory (see moveAway). A
// container engine creates such a directory if a container starts before its project is
// registered. This container mounts the empty directory until the container is started again.
//
// undo removes the links that Link has created. If Link fails, Link has already removed these
// links. The error can be ErrBlocked.
func (d *Dir) Link(name schema.ProjectName, ids []schema.DevcontainerID, projectPath string) (undo func(), err error) {
	links := []link{nameLink(name, projectPath)}
	for _, id := range ids {
		links = append(links, devcontainerLink(id, projectPath))
	}
	var created []string
	undo = func() {
		for _, path := range created {
			os.Remove(path)
		}
	}
	for _, l := range links {
		path := filepath.Join(d.path, l.place)
		if _, err := os.Readlink(path); err == nil {
			continue // do not create the link again, because a restart must work if the file system is full
		}
		if err := d.createLink(l); err != nil {
			undo()
			return nil, err
		}
		created = append(created, path)
	}
	return undo, nil
}

func (d *Dir) createLink(l link) error {
	path := filepath.Join(d.path, l.place)
	if _, err := os.Readlink(path); !errors.Is(err, fs.ErrNotExist) {
		if _, err := d.children.run(operation{Name: opMoveAway, Dir: l.place}, -1); err != nil {
			return fmt.Errorf("cannot replace %s: %w", path, err)
		}
	}
	return os.Symlink(l.target, path)
}
