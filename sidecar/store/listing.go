package store

import (
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Read returns only after the files of a store have not changed for stablePeriod, because a program can
// write files that belong together one after the other.
const stablePeriod = 20 * time.Millisecond

// A listedFile contains the name, the path, and the state of a file when the store was
// listed.
type listedFile struct {
	name string // the name of the secret, or BUNDLE/FIELD
	path string
	fileVersion
	changedAt time.Time
	// reason is the reason why the content of the file cannot be read, or "". If there is a reason,
	// only name and path are set, and the file can also be a directory.
	reason Reason
}

// A fileVersion identifies the content of a file at one time, but contains no part of the
// content.
type fileVersion struct {
	Size  int64  `json:"size"`
	Inode string `json:"inode"` // identifies the file, even if its content changes
	// Fingerprint has another value after a change of the file. Only two changes within one
	// step of the file system's clock can have the same value.
	Fingerprint string `json:"fingerprint"`
}

// A listing contains the files of a store, sorted by name. It does not contain the files that a
// Dir ignores.
type listing struct {
	dir   string // identifies the directory of a Dir and its file system
	files []listedFile
	// bundles contains the path of each bundle. If the bundle is a mount point or a symbolic link, bundles
	// also contains a text that identifies the directory and its file system (see linkIn). Otherwise the
	// text is dir, because only a change of the store, for example an edit, can replace the bundle's
	// directory.
	bundles map[string]string
	// misnamed contains the paths whose names cannot be names of secrets or fields.
	misnamed []string
	// dirChangedAt is the time of the last change of the directory or of one of its bundles.
	// Soon after such a change, a file can be missing only because an editor is replacing it.
	dirChangedAt time.Time
}

// add adds the file at path to the listing.
func (l *listing) add(name, path string, info fs.FileInfo) error {
	f, err := newListedFile(name, path, info)
	l.files = append(l.files, f)
	return err
}

// addUnusable adds the file at path, whose content cannot be read, to the listing.
func (l *listing) addUnusable(name, path string, reason Reason) {
	l.files = append(l.files, listedFile{name: name, path: path, reason: reason})
}

// newListedFile returns the description of the file at path.
func newListedFile(name, path string, info fs.FileInfo) (listedFile, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return listedFile{}, fmt.Errorf("%s: the operating system returned no metadata for this file", path)
	}
	inode := inodeOf(st)
	version := fileVersion{info.Size(), inode, fmt.Sprint(inode, st.Size, st.Mtim, st.Ctim)}
	return listedFile{name, path, version, time.Unix(st.Ctim.Unix()), ""}, nil
}

// addDir records the change time of the directory of a Dir or of a bundle. It returns a text
// that identifies the directory.
func (l *listing) addDir(info fs.FileInfo) (inode string) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	if changedAt := time.Unix(st.Ctim.Unix()); changedAt.After(l.dirChangedAt) {
		l.dirChangedAt = changedAt
	}
	return inodeOf(st)
}

// birthTime returns the time at which the directory at path was created, or "" if its file system
// does not store this time. The time is necessary to identify the directory, because many file
// systems use the number of a deleted inode for the next inode.
func birthTime(path string) string {
	var stat unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &stat); err != nil || stat.Mask&unix.STATX_BTIME == 0 {
		return ""
	}
	return fmt.Sprint(" ", stat.Btime.Sec, stat.Btime.Nsec)
}

// inodeOf returns a text that identifies a file or directory, even if its content changes.
func inodeOf(st *syscall.Stat_t) string { return fmt.Sprint(st.Dev, st.Ino) }
