package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/keyhatch/keyhatch/schema"
)

// Locations are the possible paths of a manifest, relative to the project's
// directory. The first one that exists is used.
var Locations = []string{".devcontainer/keyhatch.yaml", ".keyhatch/manifest.yaml"}

// ErrNotFound means that a project has no manifest.
var ErrNotFound = errors.New("the project has no manifest: create " + Locations[0] + " or " + Locations[1])

// ReadFromDir returns the text of the manifest of the project in dir, and the path of
// the file, one of Locations. Untrusted code can write to dir. Therefore ReadFromDir
// follows links only within dir, and reads only regular files. If the file is too
// long, the returned text has one byte more than schema.MaxManifest, and Parse
// refuses the text.
func ReadFromDir(dir string) (text []byte, file string, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, "", fmt.Errorf("cannot open the project's directory: %w", withoutPath(err))
	}
	defer root.Close()
	for _, file := range Locations {
		text, err := readRegularFile(root, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, file, fmt.Errorf("cannot read %s: %w", file, withoutPath(err))
		}
		return text, file, nil
	}
	return nil, "", ErrNotFound
}

func readRegularFile(root *os.Root, file string) ([]byte, error) {
	// Without O_NONBLOCK, opening a FIFO would block.
	f, err := root.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	return io.ReadAll(io.LimitReader(f, schema.MaxManifest+1))
}

// withoutPath removes the path from an error, because the message already contains the
// path.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
