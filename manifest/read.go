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

// Files are where a project keeps its manifest, beneath its directory; the
// first that is there counts.
var Files = []string{".devcontainer/keyhatch.yaml", ".keyhatch/manifest.yaml"}

// ErrNotFound says that a project has no manifest.
var ErrNotFound = errors.New("there is no manifest: a project keeps it in " + Files[0] + " or " + Files[1])

// Read returns the text of the manifest of the project in dir, and which of
// Files it is from. Links are followed only within dir, and only a regular file
// is read: whoever writes the tree must not choose what else is. The text may
// be one byte over schema.MaxManifest, which Parse refuses.
func Read(dir string) (text []byte, file string, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, "", fmt.Errorf("opening the project's directory: %w", bare(err))
	}
	defer root.Close()
	for _, file := range Files {
		text, err := read(root, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, file, fmt.Errorf("reading %s: %w", file, bare(err))
		}
		return text, file, nil
	}
	return nil, "", ErrNotFound
}

func read(root *os.Root, file string) ([]byte, error) {
	// Without O_NONBLOCK a FIFO in its place would hang the reader.
	f, err := root.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return regular(f)
}

func regular(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	return io.ReadAll(io.LimitReader(f, schema.MaxManifest+1))
}

// bare leaves the path of an error behind: the file is named already.
func bare(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
