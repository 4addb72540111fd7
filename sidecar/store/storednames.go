package store

import (
	"io"
	"os"
	"path/filepath"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// UnknownSize is the size of a value that StoredSizes cannot read.
const UnknownSize = -1

// StoredSizes returns the sizes of the values that the store contains for names. A size does not
// include the newline that TrimNewline removes. If the store has no file for a name, the name is not in
// the result. A command calls StoredSizes before an edit, so that the command can report which values
// the edit replaced.
func (d Dir) StoredSizes(names []string) map[string]int {
	sizes := map[string]int{}
	for _, name := range names {
		path := filepath.Join(d.Path, name)
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		sizes[name] = UnknownSize
		f, err := openRegular(path)
		if err != nil {
			continue
		}
		// The buffer never grows, because growing would leave copies of the secret in memory.
		buf := make([]byte, schema.MaxPush+1)
		n, err := io.ReadFull(f, buf)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			sizes[name] = len(TrimNewline(buf[:n]))
		}
		clear(buf)
		f.Close()
	}
	return sizes
}

// openRegular opens a file for reading. If the path, or the target of a link, is not a regular file,
// openRegular does not open it, because some devices react when a process opens them.
func openRegular(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &unusableError{path, reasonKind}
	}
	return os.OpenFile(descriptorPath(fd), os.O_RDONLY|unix.O_NONBLOCK, 0) // O_NONBLOCK, because of leases
}

// SecretNames returns name, or all fields of a bundle as BUNDLE/FIELD if name is a bundle with
// fields and not a symbolic link.
func (d Dir) SecretNames(name string) (names []string) {
	path := filepath.Join(d.Path, name)
	if isLink(path) {
		return []string{name}
	}
	entries, _ := os.ReadDir(path) // returns no entries if name is not a bundle
	for _, entry := range entries {
		if schema.ValidSecretName(entry.Name()) && !isIgnored(entry.Name()) {
			names = append(names, name+"/"+entry.Name())
		}
	}
	if names == nil {
		return []string{name}
	}
	return names
}
