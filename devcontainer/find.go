package devcontainer

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// ErrNoManifest says that no manifest was found from the working directory up.
var ErrNoManifest = errors.New("no manifest from here up")

// FindManifest looks for the project's manifest in dir and the directories
// above it. The directory's name does not count in a container, where a project
// is often mounted under another one: the manifest must be of the project that
// the socket says. ErrNoManifest says that there is none.
//
// A directory above dir that cannot be opened is passed over: a home of mode
// 0711 lets its users through and not look around.
func FindManifest(dir string, project schema.ProjectName) (*manifest.Manifest, error) {
	for {
		text, file, err := manifest.Read(dir)
		if err == nil {
			m, err := manifest.Parse(text, project)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", filepath.Join(dir, file), err)
			}
			return m, nil
		}
		closed := file == "" && errors.Is(err, fs.ErrPermission)
		if !closed && !errors.Is(err, manifest.ErrNotFound) {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return nil, ErrNoManifest
		}
		dir = up
	}
}

// ReadManifest reads the project's manifest from a file that the caller names.
func ReadManifest(file string, project schema.ProjectName) (*manifest.Manifest, error) {
	text, err := manifest.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse(text, project)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}
