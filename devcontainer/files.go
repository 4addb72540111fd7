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

// A File is a secret that the manifest declares as one.
type File struct {
	Name     schema.SecretName
	Path     string // declared, absolute
	Mode     fs.FileMode
	Template string // "" for the bare value
}

// Files are the files that the approved manifest declares, in order of the
// secrets' names. Where only is not nil it has the secrets to look at. home is
// for ~/.
func Files(info schema.InfoResponse, only []schema.SecretName, home string) ([]File, error) {
	var files []File
	for _, name := range info.Allowlist {
		in := info.Secrets[name]
		if in == nil || in.As != schema.AsFile || only != nil && !slices.Contains(only, name) {
			continue
		}
		mode, err := strconv.ParseUint(in.Mode, 8, 32)
		if err != nil {
			return nil, fmt.Errorf("%s: mode %q is not octal", name, in.Mode)
		}
		path := in.Path
		if rest, ok := strings.CutPrefix(path, "~/"); ok {
			if !filepath.IsAbs(home) {
				return nil, fmt.Errorf("%s: its path begins with ~/ and HOME is not an absolute path", name)
			}
			path = filepath.Join(home, rest)
		}
		files = append(files, File{name, path, fs.FileMode(mode), in.Template})
	}
	return files, nil
}
