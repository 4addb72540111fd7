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

// ErrPathOccupied means that a declared path exists and is not keyhatch's link.
var ErrPathOccupied = errors.New("something else is there")

// A Rendering is one project's files in memory and the links to them:
//
//	DIR/PROJECT/files/NAME    the file
//	DIR/PROJECT/links/NAME    the backlink: a link to the declared path
//
// The declared path is a link to the file. Remove finds it by the backlink, even if the
// manifest no longer declares it.
type Rendering struct {
	dir     string // as MemoryDir, verified by makeDirs
	project schema.ProjectName
}

// NewRendering returns the rendering of a project in dir, which is MemoryDir except in
// tests. It makes no directory.
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

// isManaged reports whether path is a link to a file of this project's.
func (r Rendering) isManaged(path string) bool {
	target, err := os.Readlink(path)
	return err == nil && strings.HasPrefix(target, r.projectDir()+"/files/")
}

// Render writes the files, each whole by a rename, and links them at their
// declared paths. It reports whether anything is new. All that can be refused
// is refused before the first file changes.
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
			return false, fmt.Errorf("%s goes to %s: %w", f.Name, f.Path, ErrPathOccupied)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return false, err
		}
	}
	tempFiles := make([]string, len(files)) // not yet renamed; "" where nothing is new
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
			return false, fmt.Errorf("writing the file of %s: %w", f.Name, err)
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

// makeDirs makes the directories. It verifies the first, within which no other user
// can make or move a file.
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
	if err != nil || info.Mode() != mode { // which also says: a regular file
		return false
	}
	current, err := os.ReadFile(path)
	return err == nil && bytes.Equal(current, content)
}

// writeTemp writes a temporary file, which is then renamed to its place.
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
// new. A link of the same secret at another path goes.
func (r Rendering) linkIntoPlace(f File) (created bool, err error) {
	target := r.filePath(f.Name)
	if oldPath, err := os.Readlink(r.backlinkPath(f.Name)); err == nil && oldPath != f.Path && linksTo(oldPath, target) {
		os.Remove(oldPath)
	}
	if linksTo(f.Path, target) && linksTo(r.backlinkPath(f.Name), f.Path) {
		return false, nil
	}
	// Remembered first: what is not remembered is never removed.
	if err := replaceSymlink(f.Path, r.backlinkPath(f.Name)); err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
		return false, err
	}
	// Where nothing is there, nothing that comes meanwhile is replaced.
	err = os.Symlink(target, f.Path)
	if errors.Is(err, fs.ErrExist) {
		if !r.isManaged(f.Path) {
			return false, fmt.Errorf("%s goes to %s: %w", f.Name, f.Path, ErrPathOccupied)
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

// replaceSymlink makes path a symbolic link in one step. It may replace another link.
func replaceSymlink(target, path string) error {
	tempPath := filepath.Join(filepath.Dir(path), fmt.Sprintf(".keyhatch-%d", os.Getpid()))
	os.Remove(tempPath) // of a process before us that was killed
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

// Prune removes the project's files except those in keep, and the links to them. If
// something else has replaced a link, it stays. A file is removed from memory even if
// its link cannot be removed.
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
	os.Remove(r.dir) // stays where another project has files
	return errors.Join(errs...)
}

// Remove removes all of the project's files.
func (r Rendering) Remove() error { return r.Prune(nil) }
