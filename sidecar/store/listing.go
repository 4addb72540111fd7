package store

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// StablePeriod is how long the files of a store must be unchanged before Read reads
// them.
const StablePeriod = 100 * time.Millisecond

// emptyStablePeriod replaces StablePeriod for empty files. Most programs first truncate
// a file and then write it. On a busy disk, the kernel can delay this write for longer
// than StablePeriod.
const emptyStablePeriod = time.Second

// A listedFile is the state of one file of a store at the time of the listing.
type listedFile struct {
	name        string // SECRET, or BUNDLE/FIELD
	size        int64
	fingerprint string // changes if the file changes
}

// A listing contains all files of a store, sorted by name.
type listing struct {
	files      []listedFile
	lastChange time.Time // the latest change of the content or metadata of a file
	// lastEmptyChange is the latest change of an empty file.
	lastEmptyChange time.Time
}

// add adds a file whose last change was at changedAt.
func (l *listing) add(f listedFile, changedAt time.Time) {
	l.files = append(l.files, f)
	if changedAt.After(l.lastChange) {
		l.lastChange = changedAt
	}
	if f.size == 0 && changedAt.After(l.lastEmptyChange) {
		l.lastEmptyChange = changedAt
	}
}

// remainingWait returns how much longer the files must be unchanged. If the clock of
// the file system is ahead of the local clock, the wait is at most StablePeriod or
// emptyStablePeriod.
func (l listing) remainingWait() time.Duration {
	return max(min(StablePeriod-time.Since(l.lastChange), StablePeriod), min(emptyStablePeriod-time.Since(l.lastEmptyChange), emptyStablePeriod))
}

func (l listing) equal(other listing) bool { return slices.Equal(l.files, other.files) }

// addInfo adds the file dir/name.
func (l *listing) addInfo(dir, name string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: the operating system returned no metadata of the file", filepath.Join(dir, name))
	}
	fingerprint := fmt.Sprint(st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim)
	l.add(listedFile{name, info.Size(), fingerprint}, time.Unix(st.Ctim.Unix()))
	return nil
}
