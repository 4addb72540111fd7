package store

import (
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/keyhatch/keyhatch/schema"
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
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		// The buffer never grows, because growing would leave copies of the secret in memory.
		buf := make([]byte, schema.MaxPush+1)
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			n, err := io.ReadFull(f, buf)
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				sizes[name] = len(TrimNewline(buf[:n]))
			}
		}
		clear(buf)
		f.Close()
	}
	return sizes
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
