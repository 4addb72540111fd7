package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/keyhatch/keyhatch/schema"
)

// A link is a symlink to the directory of a project. Containers mount this directory through
// the link.
type link struct {
	place  string // path of the link, relative to the runtime directory
	target string // path of the project's directory, relative to the directory of the link
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

// reserved returns the target of a link whose dev container ID is no longer approved. No directory
// has this name. The link remains, so that no project at another path can use the ID.
func (l link) reserved() string { return l.target + "-reserved" }

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

// CheckDevcontainer returns an error if the broker cannot use a dev container ID for the project
// at a path. The error is ErrInUse if the link with this ID leads to the directory of another
// project, or is reserved for another project. The error can be ErrBlocked.
func (d *Dir) CheckDevcontainer(id schema.DevcontainerID, projectPath string) error {
	return d.checkLink(devcontainerLink(id, projectPath))
}

func (d *Dir) checkLink(l link) error {
	path := filepath.Join(d.path, l.place)
	target, err := os.Readlink(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && (target == l.target || target == l.reserved()):
		return nil
	case err == nil:
		return fmt.Errorf("%w: %s", ErrInUse, path)
	}
	found, err := d.children.run(operation{Name: opCount, Dir: l.place}, -1)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case found.Entries < 0:
		return fmt.Errorf("%s is neither a link nor a readable directory: remove it", path)
	case found.Entries > 0:
		return fmt.Errorf("%s is a directory with content, probably because a container was started before the project was registered: remove the directory, then remove and create again the containers that mount the directory", path)
	}
	return nil
}

// Link creates the links with the name and the dev container IDs of the project at a path, if
// they do not exist. Call CheckName and CheckDevcontainer for these links first. If an empty
// directory exists at the path of a link, Link renames the directory (see moveAway). A
// container engine creates such a directory if a container starts before its project is
// registered. This container mounts the empty directory until the container is started again.
//
// If a link with another dev container ID leads to the directory of the project, Link changes this
// link, so that it leads to no directory. So only the links with the approved IDs give access to
// the project's socket.
//
// The function undo undoes the changes of the links, but does not rename a directory back. If Link
// fails, it has already undone these changes. The error can be ErrBlocked.
func (d *Dir) Link(name schema.ProjectName, ids []schema.DevcontainerID, projectPath string) (undo func(), err error) {
	links := []link{nameLink(name, projectPath)}
	for _, id := range ids {
		links = append(links, devcontainerLink(id, projectPath))
	}
	var undos []func()
	undo = func() {
		for _, undo := range slices.Backward(undos) {
			undo()
		}
	}
	for _, l := range links {
		path := filepath.Join(d.path, l.place)
		switch target, err := os.Readlink(path); {
		case err == nil && target == l.reserved():
			err = replaceLink(path, l.target)
			undos = append(undos, func() { replaceLink(path, l.reserved()) })
			if err != nil {
				undo()
				return nil, err
			}
		case err == nil: // the link exists: do not create it again, because a restart must work if the file system is full
		default:
			if err := d.createLink(l); err != nil {
				undo()
				return nil, err
			}
			undos = append(undos, func() { os.Remove(path) })
		}
	}
	reserved, err := d.reserveOthers(ids, projectPath)
	undos = append(undos, reserved...)
	if err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

// ReserveOthers makes the links with dev container IDs that lead to the directory of a project
// lead to no directory, except the links with the given IDs. Unlike Link, it uses no directory that a container mounts, so no container
// can delay or prevent the change.
func (d *Dir) ReserveOthers(ids []schema.DevcontainerID, projectPath string) error {
	_, err := d.reserveOthers(ids, projectPath)
	return err
}

// reserveOthers does the same as ReserveOthers, and returns functions that undo its changes.
func (d *Dir) reserveOthers(ids []schema.DevcontainerID, projectPath string) (undos []func(), err error) {
	others, err := d.devcontainers.others(filepath.Join(d.path, "devcontainers"), devcontainerLink("", projectPath).target, ids)
	for _, id := range others {
		path, l := d.DevcontainerLink(id), devcontainerLink(id, projectPath)
		undos = append(undos, func() { replaceLink(path, l.target) })
		if err = replaceLink(path, l.reserved()); err != nil {
			break
		}
	}
	return undos, err
}

// replaceLink makes a link lead to another target. It first removes the old link. If a container
// has filled the file system, the removal makes space for the new link. If replaceLink
// nevertheless cannot create the new link, the old link is removed and gives no access any more.
func replaceLink(path, target string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
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
