package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// Locations are the possible paths of a manifest, relative to the project's directory. Read
// uses the first location at which a file exists.
var Locations = []string{".devcontainer/keyhatch.yaml", ".keyhatch/manifest.yaml"}

// ErrNotFound means that a project has no manifest.
var ErrNotFound = errors.New("the project has no manifest: create " + Locations[0] + " or " + Locations[1])

// A File is the file of a project's manifest.
type File struct {
	// Text is the content of the file. If the file is longer than schema.MaxManifest, Text
	// contains only the first schema.MaxManifest+1 bytes of the file. Parse refuses such a
	// text.
	Text []byte
	// Path is the path of the file, one of Locations.
	Path string
	// Ignored is the second path in Locations if files exist at both paths, and otherwise "".
	// keyhatch ignores the file at the second path.
	Ignored string
}

// Read reads the manifest of the project in dir. Untrusted code can write to dir. Therefore
// Read follows links only within dir, and refuses a manifest that is not a regular file:
// reading a device or a FIFO could have an effect or block. If dir contains no manifest, Read
// returns ErrNotFound. If Read cannot read the file at one of Locations, it returns an error,
// and a File whose Path is this location.
func Read(dir string) (File, error) {
	root, err := OpenRoot(dir)
	if err != nil {
		return File{}, fmt.Errorf("cannot open the project's directory: %w", withoutPath(err))
	}
	defer root.Close()
	for i, location := range Locations {
		text, err := readRegularFile(root, location)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		file := File{Text: text, Path: location}
		if err != nil {
			return file, fmt.Errorf("cannot read %s: %w", location, withoutPath(err))
		}
		for _, other := range Locations[i+1:] {
			if file.Ignored == "" && exists(root, other) {
				file.Ignored = other
			}
		}
		return file, nil
	}
	return File{}, ErrNotFound
}

// OpenRoot opens the directory of a project, to which untrusted code can write. os.OpenRoot
// alone opens dir for reading before it checks that dir is a directory, and opening a FIFO for
// reading would block.
func OpenRoot(dir string) (*os.Root, error) {
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	root, err := os.OpenRoot(descriptorPath(d))
	if errors.Is(err, fs.ErrNotExist) { // d is open, so its path in /proc can be missing only if /proc is not mounted
		return nil, errors.New("/proc is not mounted")
	}
	return root, err
}

// descriptorPath returns a path of the open file f. Opening this path opens the same file
// again, even if another file now has the name of f.
func descriptorPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func readRegularFile(root *os.Root, location string) ([]byte, error) {
	found, err := find(root, location)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	info, err := found.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	// Without O_NONBLOCK, opening a regular file would block if another process holds a lease
	// on the file (fcntl(2), F_SETLEASE).
	f, err := os.OpenFile(descriptorPath(found), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, schema.MaxManifest+1))
}

// maxLinks is the maximum number of links that find itself follows for one name. The kernel
// has the same limit.
const maxLinks = 40

// find finds the file with this name below root, and follows links. It opens the file with
// O_PATH. So opening a device or a FIFO has no effect, and nothing can be read from the
// returned file.
//
// os.Root follows the links to directories in a name, and refuses links that lead out of root.
// If a name ends in a link, os.Root with O_PATH does not follow this link, but returns it.
// openat2(2) could do everything in one call, but Linux before 5.6 and some containers do not
// support openat2.
func find(root *os.Root, name string) (*os.File, error) {
	for range maxLinks + 1 {
		f, err := root.OpenFile(name, unix.O_PATH, 0)
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err == nil && info.Mode().Type() != fs.ModeSymlink {
			return f, nil
		}
		var target string
		if err == nil {
			target, err = readLink(f)
		}
		f.Close()
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(target, "/") {
			name = target // an absolute target, which os.Root refuses in the next round
			continue
		}
		// path.Join would clean the name, for example remove link/.. from the name. That would
		// be wrong: the directory link/.. is the parent of the directory to which link leads.
		name = name[:strings.LastIndexByte(name, '/')+1] + target
	}
	return nil, unix.ELOOP
}

// readLink returns the target of the link that is open as f.
func readLink(f *os.File) (string, error) {
	buffer := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buffer)
	if err != nil {
		return "", err
	}
	return string(buffer[:n]), nil
}

// exists reports whether there is a file with this name below root, even if it cannot be
// used as a manifest.
func exists(root *os.Root, name string) bool {
	f, err := find(root, name)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR)
	}
	f.Close()
	return true
}

// withoutPath removes the path from an error, because Read names the file or the directory in
// its own message. withoutPath replaces the error of os.Root for a forbidden link with a
// clearer error.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	if err.Error() == "path escapes from parent" { // os.Root does not export this error
		return errors.New("a symbolic link is absolute or leads out of the project's directory")
	}
	return err
}
