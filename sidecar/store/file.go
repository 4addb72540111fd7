package store

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyhatch/keyhatch/schema"
)

// A File is a store in one file.
type File struct {
	Path   string
	Format Format
}

// Read waits until the file stops changing. Then it returns the complete set of secrets
// in the file.
func (f File) Read(ctx context.Context) (Set, error) {
	set, err := readStable(ctx, f.listFiles, func(l listing) (Set, error) {
		text, err := readFile(f.Path, l.files[0].size)
		if err != nil {
			return nil, err
		}
		defer clear(text)
		set, err := f.Format.parse(text)
		if err != nil {
			return set, fmt.Errorf("%s: %w", f.Path, err)
		}
		return set, nil
	})
	if err == ErrUnstable { // an error that wraps ErrUnstable already contains a path
		err = fmt.Errorf("%s: %w", f.Path, err)
	}
	return set, err
}

func (f File) listFiles() (listing, error) {
	var l listing
	info, err := os.Stat(f.Path)
	switch {
	case err != nil:
		return l, describePathError(err)
	case !info.Mode().IsRegular():
		return l, fmt.Errorf("%s is not a regular file", f.Path)
	case info.Size() > schema.MaxPush:
		return l, fmt.Errorf("%s: the file has %d bytes, but the maximum size of a push is %d bytes", f.Path, info.Size(), schema.MaxPush)
	}
	return l, l.addInfo("", f.Path, info)
}

// WatchDirs returns the directory that contains the file. If the file is a symbolic link,
// WatchDirs also returns the directory that contains the target of the link.
func (f File) WatchDirs() []string { return parentDirs(f.Path) }

// IsAffectedBy reports whether a file event at path can mean that the file changed. It
// returns false for other files in the same directory.
//
// If the file is a symbolic link, IsAffectedBy returns true for every path, because the
// link can point to its target through another link in the same directory.
func (f File) IsAffectedBy(path string) bool {
	if filepath.Dir(path) != filepath.Dir(f.Path) || filepath.Base(path) == filepath.Base(f.Path) {
		return true
	}
	info, err := os.Lstat(f.Path)
	return err == nil && info.Mode().Type() == fs.ModeSymlink
}
