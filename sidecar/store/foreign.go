package store

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// A ForeignError means that an edit was refused because the directory of a bundle contains hidden files,
// directories, mounts, or other files that are not fields. The edit would delete them.
type ForeignError struct {
	Path  string   // of the directory
	names []string // in the directory
}

// maxListedForeign is the maximum number of names in the text of a ForeignError.
const maxListedForeign = 5

func (e *ForeignError) Error() string {
	text := strings.Join(e.names[:min(len(e.names), maxListedForeign)], ", ")
	if more := len(e.names) - maxListedForeign; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return fmt.Sprintf("%s contains files or directories that are not fields: %s", e.Path, text)
}

// checkOnlyFields returns a *ForeignError if the bundle d contains anything that is not a field. The
// temporary files of edits are ignored.
func (d editDir) checkOnlyFields() error {
	names, err := d.names()
	if err != nil {
		return err
	}
	var foreign []string
	for _, name := range names {
		isField := schema.ValidSecretName(name) && !isIgnored(name)
		switch {
		case d.isMount(name):
			foreign = append(foreign, name+" (a mount point)")
		case d.hasType(name, unix.AT_SYMLINK_NOFOLLOW, unix.S_IFDIR):
			foreign = append(foreign, name+"/")
		case !isField && !strings.HasPrefix(name, leftoverPrefix):
			foreign = append(foreign, name)
		}
	}
	if foreign != nil {
		return &ForeignError{d.Name(), foreign}
	}
	return nil
}

// removedBundle is the name of a removed bundle in its temporary directory.
const removedBundle = "bundle"

// maxTempDepth is the maximum depth of directories in a temporary directory of an edit. The deepest
// path is .keyhatch-edit-NUMBER/bundle/FIELD, with two directories.
const maxTempDepth = 2

// removeTemp removes a temporary file or directory of an edit from d. depth is the maximum depth of
// directories. If a directory contains files that an edit cannot have moved there, or if a file system
// is mounted there, removeTemp returns a *ForeignError and changes nothing in the directory.
func (d editDir) removeTemp(name string, depth int) error {
	if !d.hasType(name, unix.AT_SYMLINK_NOFOLLOW, unix.S_IFDIR) {
		if err := d.removeFile(name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if depth == 0 || d.isMount(name) {
		return &ForeignError{d.Name(), []string{name + "/"}}
	}
	dir, err := d.openDir(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.names()
	if err != nil {
		return err
	}
	if depth < maxTempDepth || !slices.Equal(names, []string{removedBundle}) {
		err = dir.checkOnlyFields()
	}
	for _, entry := range names {
		if err == nil {
			err = dir.removeTemp(entry, depth-1)
		}
	}
	if err == nil {
		err = d.removeDir(name)
	}
	return err
}
