package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyhatch/keyhatch/schema"
)

// A File is a store that is one file.
type File struct {
	Path   string
	Format Format
}

// Read returns the whole set, once the file stands still.
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
	if errors.Is(err, ErrUnstable) {
		err = fmt.Errorf("%s: %w", f.Path, err)
	}
	return set, err
}

func (f File) listFiles() (listing, error) {
	var l listing
	info, err := os.Stat(f.Path)
	switch {
	case err != nil:
		return l, err
	case !info.Mode().IsRegular():
		return l, fmt.Errorf("%s: it is not a file", f.Path)
	case info.Size() > schema.MaxPush:
		return l, fmt.Errorf("%s: it has %d bytes, and a push takes %d", f.Path, info.Size(), schema.MaxPush)
	}
	return l, l.addInfo("", f.Path, info)
}

// WatchDirs returns the file's directory, and that of the file a link leads to.
func (f File) WatchDirs() []string { return parentDirs(f.Path) }

// IsAffectedBy leaves out the file's neighbours, but not what a link goes through.
func (f File) IsAffectedBy(path string) bool {
	if filepath.Dir(path) != filepath.Dir(f.Path) || filepath.Base(path) == filepath.Base(f.Path) {
		return true
	}
	info, err := os.Lstat(f.Path)
	return err == nil && info.Mode().Type() == fs.ModeSymlink
}
