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

// ErrOccupied says that what stands at a declared path is not keyhatch's.
var ErrOccupied = errors.New("something else is there")

// A Rendering is one project's files in memory and the links to them:
//
//	DIR/PROJECT/files/NAME    the file
//	DIR/PROJECT/links/NAME    a link to the declared path, where a link leads back
//
// The second is how Remove finds what the manifest may no longer declare.
type Rendering struct {
	dir     string // as MemoryDir, verified by open
	project schema.ProjectName
}

// NewRendering is for the files of project in dir, which is MemoryDir's but for
// tests. Nothing is made yet.
func NewRendering(dir string, project schema.ProjectName) Rendering {
	return Rendering{dir, project}
}

func (r Rendering) root() string { return filepath.Join(r.dir, string(r.project)) }

func (r Rendering) file(name schema.SecretName) string {
	return filepath.Join(r.root(), "files", string(name))
}

func (r Rendering) link(name schema.SecretName) string {
	return filepath.Join(r.root(), "links", string(name))
}

// ours reports whether the link at path leads to a file of this project's.
func (r Rendering) ours(path string) bool {
	target, err := os.Readlink(path)
	return err == nil && strings.HasPrefix(target, r.root()+"/files/")
}

// Render writes the files, each whole by a rename, and links them at their
// declared paths. It reports whether anything is new. All that can be refused
// is refused before the first file changes.
func (r Rendering) Render(files []File, values map[schema.SecretName]schema.SecretValue) (changed bool, err error) {
	if len(files) == 0 {
		return false, nil
	}
	texts := make([][]byte, len(files))
	for i, f := range files {
		if texts[i], err = fileText(f.Name, f.Template, values[f.Name]); err != nil {
			return false, err
		}
	}
	if err := r.open(); err != nil {
		return false, err
	}
	for _, f := range files {
		switch _, err := os.Lstat(f.Path); {
		case err == nil && !r.ours(f.Path):
			return false, fmt.Errorf("%s goes to %s: %w", f.Name, f.Path, ErrOccupied)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return false, err
		}
	}
	written := make([]string, len(files)) // not yet renamed; "" where nothing is new
	defer func() {
		for _, path := range written {
			if path != "" {
				os.Remove(path)
			}
		}
	}()
	for i, f := range files {
		if same(r.file(f.Name), texts[i], f.Mode) {
			continue
		}
		if written[i], err = r.write(texts[i], f.Mode); err != nil {
			return false, fmt.Errorf("writing the file of %s: %w", f.Name, err)
		}
	}
	for i, f := range files {
		if written[i] != "" {
			if err := os.Rename(written[i], r.file(f.Name)); err != nil {
				return changed, err
			}
			written[i], changed = "", true
		}
		linked, err := r.place(f)
		if err != nil {
			return changed, err
		}
		changed = changed || linked
	}
	return changed, nil
}

// open makes the directories. The first is verified, and within it nobody else
// can make or move anything.
func (r Rendering) open() error {
	if err := inMemory(filepath.Dir(r.dir)); err != nil {
		return err
	}
	if err := os.Mkdir(r.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", ErrNoMemoryDir, err)
	}
	if err := verifyMemoryDir(r.dir); err != nil {
		return err
	}
	for _, sub := range []string{"", "files", "links"} {
		if err := os.Mkdir(filepath.Join(r.root(), sub), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func same(path string, text []byte, mode fs.FileMode) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != mode { // which also says: a regular file
		return false
	}
	there, err := os.ReadFile(path)
	return err == nil && bytes.Equal(there, text)
}

// write writes a file that only its rename makes known.
func (r Rendering) write(text []byte, mode fs.FileMode) (path string, err error) {
	f, err := os.CreateTemp(r.root(), ".new-")
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// place links the file at its declared path, and reports whether the link is
// new. A link of the same secret at another path goes.
func (r Rendering) place(f File) (bool, error) {
	target := r.file(f.Name)
	if was, err := os.Readlink(r.link(f.Name)); err == nil && was != f.Path && leads(was, target) {
		os.Remove(was)
	}
	if leads(f.Path, target) && leads(r.link(f.Name), f.Path) {
		return false, nil
	}
	// Remembered first: what is not remembered is never removed.
	if err := relink(f.Path, r.link(f.Name)); err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
		return false, err
	}
	// Where nothing is there, nothing that comes meanwhile is replaced.
	err := os.Symlink(target, f.Path)
	if errors.Is(err, fs.ErrExist) {
		if !r.ours(f.Path) {
			return false, fmt.Errorf("%s goes to %s: %w", f.Name, f.Path, ErrOccupied)
		}
		err = relink(target, f.Path)
	}
	return err == nil, err
}

func leads(link, target string) bool {
	to, err := os.Readlink(link)
	return err == nil && to == target
}

// relink puts a link at path in one step, whatever link is there.
func relink(target, path string) error {
	temporary := filepath.Join(filepath.Dir(path), fmt.Sprintf(".keyhatch-%d", os.Getpid()))
	os.Remove(temporary) // of a process before us that was killed
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		os.Remove(temporary)
		return err
	}
	return nil
}

// Rendered are the projects that have files in dir.
func Rendered(dir string) ([]Rendering, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []Rendering
	for _, entry := range entries {
		if project := schema.ProjectName(entry.Name()); schema.ValidProjectName(project) {
			all = append(all, Rendering{dir, project})
		}
	}
	return all, nil
}

// Keep removes the project's files but these, and the links to them, and leaves
// what has come into a link's place. A file goes from memory even where its link
// cannot be removed.
func (r Rendering) Keep(files []File) error {
	if _, err := os.Lstat(r.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := verifyMemoryDir(r.dir); err != nil {
		return err
	}
	var problems []error
	for _, kind := range []string{"links", "files"} {
		entries, err := os.ReadDir(filepath.Join(r.root(), kind))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, entry := range entries {
			name := schema.SecretName(entry.Name())
			if slices.ContainsFunc(files, func(f File) bool { return f.Name == name }) {
				continue
			}
			if path, err := os.Readlink(r.link(name)); err == nil && leads(path, r.file(name)) {
				problems = append(problems, os.Remove(path))
			}
			os.Remove(r.link(name))
			os.Remove(r.file(name))
		}
	}
	if len(files) > 0 {
		return errors.Join(problems...)
	}
	problems = append(problems, os.RemoveAll(r.root()))
	os.Remove(r.dir) // stays where another project has files
	return errors.Join(problems...)
}

// Remove removes all of the project's files.
func (r Rendering) Remove() error { return r.Keep(nil) }
