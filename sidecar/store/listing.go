package store

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// StablePeriod is how long the files of a store must be unchanged before Read reads the
// files.
const StablePeriod = 100 * time.Millisecond

// emptyStablePeriod is how long an empty file must be unchanged before Read reads the
// file. It is longer than StablePeriod, because most programs first truncate a file and
// then write the new content. If the disk is busy, the kernel can delay this write for
// longer than StablePeriod.
const emptyStablePeriod = time.Second

// A listedFile describes a file of a store at the time when the store was listed.
type listedFile struct {
	name        string // the name of the secret, or BUNDLE/FIELD
	size        int64
	fingerprint string // has another value after each change of the file
}

// A listing contains all files of a store, sorted by name.
type listing struct {
	files []listedFile
	// lastChange is the time of the latest change of the content or metadata of any file.
	lastChange time.Time
	// lastEmptyChange is the time of the latest change of any empty file.
	lastEmptyChange time.Time
}

// add adds a file to the listing. The last change of the file was at changedAt.
func (l *listing) add(f listedFile, changedAt time.Time) {
	l.files = append(l.files, f)
	if changedAt.After(l.lastChange) {
		l.lastChange = changedAt
	}
	if f.size == 0 && changedAt.After(l.lastEmptyChange) {
		l.lastEmptyChange = changedAt
	}
}

// remainingWait returns how long the files must stay unchanged before they can be read.
// If the clock of the file system is ahead of the local clock, a file can have a change
// time in the future. Even then, the wait is at most StablePeriod, or emptyStablePeriod
// for an empty file.
func (l listing) remainingWait() time.Duration {
	return max(min(StablePeriod-time.Since(l.lastChange), StablePeriod), min(emptyStablePeriod-time.Since(l.lastEmptyChange), emptyStablePeriod))
}

func (l listing) equal(other listing) bool { return slices.Equal(l.files, other.files) }

// addInfo adds the file dir/name to the listing. info describes this file.
func (l *listing) addInfo(dir, name string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: the operating system returned no metadata for this file", filepath.Join(dir, name))
	}
	fingerprint := fmt.Sprint(st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim)
	l.add(listedFile{name, info.Size(), fingerprint}, time.Unix(st.Ctim.Unix()))
	return nil
}
