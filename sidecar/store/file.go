package store

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// A File is a store in one file.
type File struct {
	Path   string
	Format Format
}

// Read returns the complete set of secrets in the file. If a program is still writing the file,
// Read returns the old set, or an error if there is no old set. Read returns an error if the
// file is empty. For an empty value, Read uses the old value, or omits the secret if there is no
// old value.
func (f File) Read(ctx context.Context, previous *Reading) (*Reading, error) {
	reading, err := readStable(ctx, previous, f.listFiles, f.readFile)
	if err == ErrUnstable { // an error that wraps ErrUnstable already contains a path
		err = fmt.Errorf("%s: %w", f.Path, err)
	}
	return reading, err
}

func (f File) readFile(l listing, previous *Reading) (*Reading, error) {
	r := newReading()
	text, reason, err := r.readFile(l.files[0], previous)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	state := r.files[f.Path]
	if reason != "" && reason != ReasonEmpty {
		if state.LastUsed.Fingerprint == "" || previous.Set == nil {
			return r, &unusableError{f.Path, reason} // readStable uses the times in r
		}
		for _, name := range state.Names {
			r.keepOld(name, previous)
		}
		for path, reason := range previous.Unusable {
			if reason == ReasonEmptyValue && strings.HasPrefix(path, f.Path+": ") {
				r.Unusable[path] = reason
			}
		}
		return r, nil
	}
	set, lines, err := f.Format.parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	r.Set = set
	r.keepOldOfEmpty(f.Path, previous, lines)
	r.checkPEM(f.Path)
	state.Names = slices.Collect(maps.Keys(r.Set))
	r.files[f.Path] = state
	return r, nil
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
		return l, fmt.Errorf("%s: %w: the file has %d bytes, but the maximum size of a push is %d bytes", f.Path, ErrTooLarge, info.Size(), schema.MaxPush)
	}
	return l, l.add("", f.Path, info)
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
