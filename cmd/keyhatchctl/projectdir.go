package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
)

// resolveProjectDir returns the absolute path of a project's directory without
// symbolic links.
func resolveProjectDir(arg string) (path string, err error) {
	if path, err = filepath.Abs(arg); err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	if err != nil {
		return "", fmt.Errorf("cannot open the project's directory: %s: %w", cli.Printable(arg), err)
	}
	if !utf8.ValidString(path) {
		return "", fmt.Errorf("cannot register %q: the path must be valid UTF-8: rename the directory", path)
	}
	return path, nil
}
