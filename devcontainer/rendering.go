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

// ErrPathOccupied means that a declared path exists and is not one of keyhatch's links.
var ErrPathOccupied = errors.New("the path exists, and keyhatch did not create it")

// A Rendering is the set of one project's files in memory and the links to them:
//
//	DIR/PROJECT/files/NAME    the file
//	DIR/PROJECT/links/NAME    the backlink: a link to the declared path
//
// The declared path is a link to the file. Remove finds the declared path through the
// backlink, even if the manifest no longer declares the file.
type Rendering struct {
	dir     string // MemoryDir, except in tests; makeDirs verifies it
	project schema.ProjectName
}

// NewRendering returns the rendering of a project in dir, which is MemoryDir except in
// tests. It creates no directory.
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

// Render writes the files and links them at their declared paths. A rename makes each
// file appear complete. Render reports whether a file or a link changed. It makes all
// checks before it changes the first file.
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
	if err := r.makeDirs(); err != nil {
		return false, err
	}
	for _, f := range files {
		switch _, err := os.Lstat(f.Path); {
		case err == nil && !r.isManaged(f.Path):
			return false, fmt.Errorf("cannot link %s to %s: %w", f.Path, f.Name, ErrPathOccupied)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return false, err
		}
	}
	tempFiles := make([]string, len(files)) // files that are not yet renamed; "" if the file is up to date
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
			return false, fmt.Errorf("cannot write the file of %s: %w", f.Name, err)
		}
	}
	for i, f := range files {
		if tempFiles[i] != "" {
			if err := os.Rename(tempFiles[i], r.filePath(f.Name)); err != nil {
				return changed, err
			}
			tempFiles[i], changed = "", true
		}
		linked, err := r.linkIntoPlace(f)
		if err != nil {
			return changed, err
		}
		changed = changed || linked
	}
	return changed, nil
}

// makeDirs creates the directories. It verifies only r.dir, because no other user can
// create or move a file inside it.
func (r Rendering) makeDirs() error {
	if err := checkTmpfs(filepath.Dir(r.dir)); err != nil {
		return err
	}
	if err := os.Mkdir(r.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", ErrNoMemoryDir, err)
	}
	if err := verifyMemoryDir(r.dir); err != nil {
		return err
	}
	for _, sub := range []string{"", "files", "links"} {
		if err := os.Mkdir(filepath.Join(r.projectDir(), sub), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// isUpToDate reports whether path is a regular file with this content and mode.
func isUpToDate(path string, content []byte, mode fs.FileMode) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != mode { // equal modes also mean a regular file
		return false
	}
	current, err := os.ReadFile(path)
	return err == nil && bytes.Equal(current, content)
}

// writeTemp writes content to a temporary file. Render renames the file later.
func (r Rendering) writeTemp(content []byte, mode fs.FileMode) (path string, err error) {
	f, err := os.CreateTemp(r.projectDir(), ".new-")
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

// linkIntoPlace links the file at its declared path, and reports whether the link is
// new. If the secret has a link at another path, linkIntoPlace removes that link.
func (r Rendering) linkIntoPlace(f File) (created bool, err error) {
	target := r.filePath(f.Name)
	if oldPath, err := os.Readlink(r.backlinkPath(f.Name)); err == nil && oldPath != f.Path && linksTo(oldPath, target) {
		os.Remove(oldPath)
	}
	if linksTo(f.Path, target) && linksTo(r.backlinkPath(f.Name), f.Path) {
		return false, nil
	}
	// The backlink must be created first: without a backlink, Remove would not find the
	// link after a crash.
	if err := replaceSymlink(f.Path, r.backlinkPath(f.Name)); err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
		return false, err
	}
	// Symlink fails if the path exists, so it cannot replace a file that was created
	// after Render's check.
	err = os.Symlink(target, f.Path)
	if errors.Is(err, fs.ErrExist) {
		if !r.isManaged(f.Path) {
			return false, fmt.Errorf("cannot link %s to %s: %w", f.Path, f.Name, ErrPathOccupied)
		}
		err = replaceSymlink(target, f.Path)
	}
	return err == nil, err
}

// linksTo reports whether link is a symbolic link whose text is target.
func linksTo(link, target string) bool {
	actual, err := os.Readlink(link)
	return err == nil && actual == target
}

// replaceSymlink makes path a symbolic link to target in one step. It replaces an
// existing link.
func replaceSymlink(target, path string) error {
	tempPath := filepath.Join(filepath.Dir(path), fmt.Sprintf(".keyhatch-%d", os.Getpid()))
	os.Remove(tempPath) // left by a killed process that had the same process ID
	if err := os.Symlink(target, tempPath); err != nil {
		return err
	}
	if err := os.Rename(tempPath, path); err != nil {
		os.Remove(tempPath)
		return err
	}
	return nil
}

// FindRenderings returns the renderings of all projects that have files in dir.
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

// Prune removes the project's files, except the files in keep, and the links to them. If
// a declared path is no longer keyhatch's link, Prune does not remove it. It removes a
// file from memory even if it cannot remove the link.
func (r Rendering) Prune(keep []File) error {
	if _, err := os.Lstat(r.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := verifyMemoryDir(r.dir); err != nil {
		return err
	}
	var errs []error
	for _, subdir := range []string{"links", "files"} {
		entries, err := os.ReadDir(filepath.Join(r.projectDir(), subdir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, entry := range entries {
			name := schema.SecretName(entry.Name())
			if slices.ContainsFunc(keep, func(f File) bool { return f.Name == name }) {
				continue
			}
			if path, err := os.Readlink(r.backlinkPath(name)); err == nil && linksTo(path, r.filePath(name)) {
				errs = append(errs, os.Remove(path))
			}
			os.Remove(r.backlinkPath(name))
			os.Remove(r.filePath(name))
		}
	}
	if len(keep) > 0 {
		return errors.Join(errs...)
	}
	errs = append(errs, os.RemoveAll(r.projectDir()))
	os.Remove(r.dir) // fails if another project has files
	return errors.Join(errs...)
}

// Remove removes all of the project's files.
func (r Rendering) Remove() error { return r.Prune(nil) }
