package devcontainer

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// A File is a secret that the manifest declares as a file.
type File struct {
	Name     schema.SecretName
	Path     string // the declared path, as an absolute path
	Mode     fs.FileMode
	Template string // "" means that the file contains only the value
}

// DeclaredFiles returns the files that the approved manifest declares, sorted by the
// secret's name. If only is not nil, DeclaredFiles omits the files of all secrets that are
// not in only. home replaces ~ at the beginning of a path. DeclaredFiles refuses two files with the same
// path.
func DeclaredFiles(info schema.InfoResponse, only []schema.SecretName, home string) (files []File, err error) {
	for _, name := range info.Allowlist {
		injection := info.Secrets[name]
		if injection == nil || injection.As != schema.InjectAsFile || only != nil && !slices.Contains(only, name) {
			continue
		}
		mode, err := strconv.ParseUint(injection.Mode, 8, 32)
		if err != nil {
			return nil, fmt.Errorf("cannot render %s: mode %q is not an octal number", name, injection.Mode)
		}
		path := injection.Path
		if rest, ok := strings.CutPrefix(path, "~/"); ok {
			if !filepath.IsAbs(home) {
				return nil, fmt.Errorf("cannot render %s: the declared path begins with ~/, but HOME is not an absolute path", name)
			}
			path = filepath.Join(home, rest)
		}
		for _, other := range files {
			if other.Path == path {
				return nil, fmt.Errorf("cannot render %s: the secrets %s and %s have the same path %s", name, other.Name, name, path)
			}
		}
		files = append(files, File{name, path, fs.FileMode(mode), injection.Template})
	}
	return files, nil
}
