package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
)

// A projectDir contains the paths of a project's directory.
type projectDir struct {
	path  string   // the absolute path of the directory, without symbolic links
	typed string   // the path that the operator typed, as an absolute path
	paths []string // the result of followLinks for typed
}

// folders returns the paths by which the operator can open the directory in a dev container.
func (d projectDir) folders() []string { return slices.Compact([]string{d.path, d.typed}) }

// resolveProjectDir finds the directory arg, which the operator typed. A command must call
// resolveProjectDir only once, because untrusted code can replace a symbolic link in the path at
// any time. command is the subcommand, which a hint repeats. resolveProjectDir returns an error
// if arg is not a directory, or if its path cannot be registered.
func resolveProjectDir(o *globalOptions, command, arg string) (projectDir, error) {
	typed, err := filepath.Abs(arg)
	paths := []string{typed}
	if err == nil {
		paths, err = followLinks(typed)
	}
	path := paths[len(paths)-1]
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	if err != nil {
		return projectDir{}, fmt.Errorf("cannot open the project's directory: %s: %w", cli.PrintableWord(arg), err)
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		failure := &cli.Error{Err: fmt.Errorf("%s is not a directory", cli.PrintableWord(arg))}
		for _, location := range manifest.Locations {
			if dir, isManifest := strings.CutSuffix(filepath.Clean(arg), location); isManifest {
				failure.Hint = "use the directory of the project: " + o.command(command, filepath.Clean(dir))
			}
		}
		return projectDir{}, failure
	}
	if !utf8.ValidString(path) {
		return projectDir{}, fmt.Errorf("cannot register %s: the path must be valid UTF-8: rename the directory", cli.PrintableWord(path))
	}
	if strings.HasSuffix(path, "\n") || strings.HasSuffix(typed, "\n") { // see cli.ShellQuote
		return projectDir{}, fmt.Errorf("cannot register %s: the path must not end with a line break: rename the directory", cli.PrintableWord(typed))
	}
	return projectDir{path, typed, paths}, nil
}
