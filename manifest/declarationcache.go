package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// minUnchanged is the time for which a file must be unchanged before a DeclarationCache keeps
// its content. If a file changes twice within one tick of the kernel's clock, the second
// change does not change the times of the file.
const minUnchanged = time.Second

// A DeclarationCache reads a directory of declarations. It keeps the valid declarations, and
// reads a file again only if the file has changed, or if the last change was too recent (see
// minUnchanged). The zero value is ready for use. Several goroutines may call Read at the same
// time.
type DeclarationCache struct {
	mu    sync.Mutex
	files map[string]declarationFile // guarded by mu; the valid declarations, by path
}

type declarationFile struct {
	version     fileVersion
	declaration Declaration
}

// A fileVersion differs after each change of the content, the owner, or the mode of a file, because
// each change sets the ctime. No program can set the ctime to a chosen value.
type fileVersion struct {
	device, inode uint64
	size          int64
	changed       unix.Timespec // the ctime: when the content, the owner, or the mode was last changed
}

// Read reads all files NAME.yaml in dir, except hidden files. The keys of both maps are the
// values of NAME: declared contains the valid declarations, and invalid contains the errors of
// the other files. If dir does not exist, both maps are empty. If dir cannot be read, or an
// untrusted user can write to dir, Read returns an error. Do not change the slices in the
// declarations, because the cache keeps them.
func (c *DeclarationCache) Read(dir string) (declared map[string]Declaration, invalid map[string]error, err error) {
	declared, invalid = map[string]Declaration{}, map[string]error{}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return declared, invalid, nil
	}
	if err != nil {
		return nil, nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	if err := checkOwnerAndMode(d); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", dir, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	files := make(map[string]declarationFile, len(entries))
	for _, entry := range entries {
		name, isYAML := strings.CutSuffix(entry.Name(), ".yaml")
		if !isYAML || strings.HasPrefix(name, ".") {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		file, err := c.readLocked(path, name)
		if err != nil {
			invalid[name] = err
			continue
		}
		files[path] = file
		declared[name] = file.declaration
	}
	c.files = files
	return declared, invalid, nil
}

// ReadDeclarations does the same as DeclarationCache.Read, without a cache.
func ReadDeclarations(dir string) (declared map[string]Declaration, invalid map[string]error, err error) {
	return new(DeclarationCache).Read(dir)
}

// readLocked returns the declaration in a file. If the cache contains the declaration, and the
// file has not changed, readLocked does not read the file. The caller holds c.mu.
func (c *DeclarationCache) readLocked(path, name string) (file declarationFile, err error) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil { // get the version before the content, so that the next call notices a change during the reading
		file.version = fileVersion{st.Dev, st.Ino, st.Size, st.Ctim}
	}
	if known, ok := c.files[path]; ok && known.version == file.version && known.version != (fileVersion{}) {
		return known, nil
	}
	if time.Since(time.Unix(st.Ctim.Unix())) < minUnchanged {
		file.version = fileVersion{} // no file has this version, so the next call reads the file again
	}
	file.declaration, err = readDeclaration(path, name)
	return file, err
}
