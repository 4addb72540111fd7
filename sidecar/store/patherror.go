package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A missingError is the error for a file or directory that does not exist. The value of a
// missingError is the path.
type missingError string

func (e missingError) Error() string { return string(e) + " does not exist" }

func (e missingError) Unwrap() error { return fs.ErrNotExist }

// describePathError rewrites the text of an error of package os that contains a path. The new text
// begins with the path, and does not contain the name of the system call. describePathError returns
// all other errors unchanged.
func describePathError(err error) error {
	if linkErr, ok := errors.AsType[*os.LinkError](err); ok {
		return fmt.Errorf("%s: %w", linkErr.New, linkErr.Err)
	}
	pathErr, ok := errors.AsType[*fs.PathError](err)
	switch {
	case !ok:
		return err
	case errors.Is(err, fs.ErrNotExist):
		return missingError(pathErr.Path)
	}
	return fmt.Errorf("%s: %w", pathErr.Path, pathErr.Err)
}
