package devcontainer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// ErrPathOccupied means that a declared path exists and is not a link that keyhatch created
// for this project.
var ErrPathOccupied = errors.New("the path exists, but keyhatch did not create it for this project")

// ErrLinkReplaced means that a declared path is a file instead of the link that keyhatch created.
var ErrLinkReplaced = errors.New("a program has replaced keyhatch's link by a file, which can contain a secret on a disk")

// A Rendering is the set of one project's files in memory and the links to these files. For
// the secret NAME, DIR contains:
//
//	DIR/PROJECT/files/NAME    the file with the secret
//	DIR/PROJECT/links/NAME    the backlink, a symbolic link to the declared path
//
// The declared path is a symbolic link to the file. Remove uses the backlink to find the
// declared path, even if the manifest no longer declares the file.
type Rendering struct {
	dir     string // the directory DIR; another user may have created it, so makeDirs and Prune verify it
	project schema.ProjectName
}

// NewRendering returns the rendering of a project in dir. dir is the result of MemoryDir,
// except in tests. NewRendering creates no directory.
func NewRendering(dir string, project schema.ProjectName) Rendering {
	return Rendering{dir, project}
}

func (r Rendering) projectDir() string { return filepath.Join(r.dir, string(r.project)) }

func (r Rendering) filePath(name schema.SecretName) string {
	return filepath.Join(r.projectDir(), "files", string(name))
}

func (r Rendering) backlinkPath(name schema.SecretName) string {
	return filepath.Join(r.projectDir(), "links", string(name))
}

// isManaged reports whether path is a link to a file of this rendering.
func (r Rendering) isManaged(path string) bool {
	target, err := os.Readlink(path)
	return err == nil && strings.HasPrefix(target, r.projectDir()+"/files/")
}

// Render writes the files and creates links to them at the declared paths. It writes each
// file under a temporary name and then renames it, so that no program reads a partly written
// file. changed reports whether a file or a link changed, even if Render returns an error.
// Before Render changes the first file, it checks the templates, the directories, and the
// declared paths.
func (r Rendering) Render(files []File, values map[schema.SecretName]schema.SecretValue) (changed bool, err error) {
	if len(files) == 0 {
		return false, nil
	}
	contents := make([][]byte, len(files))
	for i, f := range files {
		if contents[i], err = fileContent(f.Name, f.Template, values[f.Name]); err != nil {
			return false, err
		}
	}
	if err := r.makeDirs(searchMode(files...)); err != nil {
		return false, err
	}
	for _, f := range files {
		switch _, err := os.Lstat(f.Path); {
		case err == nil && !r.isManaged(f.Path):
			return false, fmt.Errorf("cannot create the link %s for the secret %s: %w", f.Path, f.Name, ErrPathOccupied)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return false, err
		}
		if oldPath, err := os.Readlink(r.backlinkPath(f.Name)); err == nil && oldPath != f.Path {
			if err := checkLinkNotReplaced(oldPath); err != nil {
				return false, err
			}
		}
	}
	unlock, err := lockTempFiles(r.projectDir())
	if err != nil {
		return false, err
	}
	defer unlock()
	tempFiles := make([]string, len(files)) // paths of temporary files that are not yet renamed; "" if there is none
	defer func() {
		for _, path := range tempFiles {
			if path != "" {
				os.Remove(path)
			}
		}
	}()
	for i, f := range files {
		if isUpToDate(r.filePath(f.Name), contents[i], f.Mode) {
			continue
		}
		if tempFiles[i], err = r.writeTemp(contents[i], f.Mode); err != nil {
			return false, fmt.Errorf("cannot write the file of the secret %s: %w", f.Name, err)
		}
	}
	for i, f := range files {
		if tempFiles[i] != "" {
			if err := os.Rename(tempFiles[i], r.filePath(f.Name)); err != nil {
				return changed, err
			}
			tempFiles[i], changed = "", true
		}
		linksChanged, err := r.linkIntoPlace(f)
		changed = changed || linksChanged
		if err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// searchMode returns the mode of a directory that contains these files. If the group or other users
// can access a file, they get the execute permission for the directory, because opening the file
// requires this permission. They cannot list the directory.
func searchMode(files ...File) fs.FileMode {
	mode := fs.FileMode(0o700)
	for _, f := range files {
		if f.Mode&0o070 != 0 {
			mode |= 0o010
		}
		if f.Mode&0o007 != 0 {
			mode |= 0o001
		}
	}
	return mode
}

// makeDirs creates the directories of the rendering. It verifies only r.dir, because no other
// user can create or move a file inside a verified r.dir.
func (r Rendering) makeDirs(mode fs.FileMode) error {
	if err := checkTmpfs(filepath.Dir(r.dir)); err != nil {
		return err
	}
	if err := os.Mkdir(r.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", ErrNoMemoryDir, err)
	}
	if err := verifyMemoryDir(r.dir); err != nil {
		return err
	}
	for sub, mode := range map[string]fs.FileMode{"": mode, "files": mode, "links": 0o700} {
		dir := filepath.Join(r.projectDir(), sub)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := os.Chmod(dir, mode); err != nil {
			return err
		}
	}
	// Other projects of this user may have files in r.dir. So only add permissions to the mode
	// of r.dir, and do not remove any.
	info, err := os.Lstat(r.dir)
	if err != nil || info.Mode().Perm()|mode == info.Mode().Perm() {
		return err
	}
	return os.Chmod(r.dir, info.Mode().Perm()|mode)
}

// isUpToDate reports whether path is a regular file with this content and mode.
func isUpToDate(path string, content []byte, mode fs.FileMode) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != mode { // mode has no type bits, so only a regular file can have this mode
		return false
	}
	current, err := os.ReadFile(path)
	return err == nil && bytes.Equal(current, content)
}

// writeTemp writes content to a temporary file. Render renames the file later.
func (r Rendering) writeTemp(content []byte, mode fs.FileMode) (path string, err error) {
	f, err := os.CreateTemp(r.projectDir(), tempPrefix)
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// linkIntoPlace creates the link to the file at the declared path. If the secret has a link at
// an older declared path, linkIntoPlace removes the old link. changed is false if the link and
// the backlink already exist. changed is true if linkIntoPlace removed the old link and then
// failed.
func (r Rendering) linkIntoPlace(f File) (changed bool, err error) {
	target := r.filePath(f.Name)
	if oldPath, err := os.Readlink(r.backlinkPath(f.Name)); err == nil && oldPath != f.Path && linksTo(oldPath, target) {
		changed = os.Remove(oldPath) == nil
	}
	if linksTo(f.Path, target) && linksTo(r.backlinkPath(f.Name), f.Path) {
		return changed, nil
	}
	// Create the backlink before the link. Otherwise, if keyhatch crashed after it created
	// the link, Remove would not find the link.
	if err := replaceSymlink(f.Path, r.backlinkPath(f.Name)); err != nil {
		return changed, err
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), searchMode(f)); err != nil {
		return changed, err
	}
	// os.Symlink fails if the path exists. Therefore it cannot replace a file that another
	// program created after Render checked the path.
	err = os.Symlink(target, f.Path)
	if errors.Is(err, fs.ErrExist) {
		if !r.isManaged(f.Path) {
			return changed, fmt.Errorf("cannot create the link %s for the secret %s: %w", f.Path, f.Name, ErrPathOccupied)
		}
		err = replaceSymlink(target, f.Path)
	}
	return changed || err == nil, err
}

// linksTo reports whether link is a symbolic link that contains exactly the path target.
func linksTo(link, target string) bool {
	actual, err := os.Readlink(link)
	return err == nil && actual == target
}

// replaceSymlink creates a symbolic link to target at path. If a link already exists at path,
// replaceSymlink replaces the link in one step.
func replaceSymlink(target, path string) error {
	tempPath := filepath.Join(filepath.Dir(path), fmt.Sprintf(".keyhatch-%d", os.Getpid()))
	os.Remove(tempPath) // a killed process with the same process ID may have created this link
	if err := os.Symlink(target, tempPath); err != nil {
		return err
	}
	if err := os.Rename(tempPath, path); err != nil {
		os.Remove(tempPath)
		return err
	}
	return nil
}

// FindRenderings returns the renderings of all projects that have a directory in dir.
func FindRenderings(dir string) ([]Rendering, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var renderings []Rendering
	for _, entry := range entries {
		if project := schema.ProjectName(entry.Name()); schema.ValidProjectName(project) {
			renderings = append(renderings, Rendering{dir, project})
		}
	}
	return renderings, nil
}

// Prune removes the project's files and the links to them, except the files in keep and their
// links. If a declared path is no longer a link that keyhatch created, Prune does not remove
// the path. If a file has replaced the link, Prune returns an error with ErrLinkReplaced, and keeps the
// backlink, so that each later call returns the error until this file is removed. If Prune cannot remove
// a link, Prune still removes the file from memory. removed reports whether a file or a link was removed,
// even if Prune returns an error.
func (r Rendering) Prune(keep []File) (removed bool, err error) {
	return r.prune(keep, false)
}

// Remove removes all of the project's files and the links to them. If a file has replaced a link that
// keyhatch created, Remove does not change this file, and returns an error with ErrLinkReplaced. Remove
// also removes the backlink, so only the first call returns this error.
func (r Rendering) Remove() error {
	_, err := r.prune(nil, true)
	return err
}

// prune does the work of Prune. If forget is true, prune also removes the backlinks of the links that were
// replaced by files.
func (r Rendering) prune(keep []File, forget bool) (removed bool, err error) {
	if _, err := os.Lstat(r.dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err := verifyMemoryDir(r.dir); err != nil {
		return false, err
	}
	var errs []error
	hasReplaced := false
	for _, subdir := range []string{"files", "links"} {
		entries, err := os.ReadDir(filepath.Join(r.projectDir(), subdir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
		for _, entry := range entries {
			name := schema.SecretName(entry.Name())
			if slices.ContainsFunc(keep, func(f File) bool { return f.Name == name }) {
				continue
			}
			path, err := os.Readlink(r.backlinkPath(name))
			if err == nil && linksTo(path, r.filePath(name)) {
				err := os.Remove(path)
				removed = removed || err == nil
				errs = append(errs, err)
			}
			removed = os.Remove(r.filePath(name)) == nil || removed
			if subdir == "files" {
				continue
			}
			if err := checkLinkNotReplaced(path); err != nil {
				errs, hasReplaced = append(errs, err), true
				continue
			}
			os.Remove(r.backlinkPath(name))
		}
	}
	if len(keep) > 0 || hasReplaced && !forget {
		return removed, errors.Join(errs...)
	}
	errs = append(errs, os.RemoveAll(r.projectDir()))
	os.Remove(r.dir) // fails if r.dir still contains files of another project
	return removed, errors.Join(errs...)
}

// checkLinkNotReplaced returns an error if path, at which keyhatch has created a link, is a regular file.
// For example, `sed -i` replaces a link by a file with the content of its target.
func checkLinkNotReplaced(path string) error {
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
		return fmt.Errorf("%s was not removed: %w", path, ErrLinkReplaced)
	}
	return nil
}
