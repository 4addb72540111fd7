package store

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// StablePeriod is how long the files of a store must not have changed before they
// are read.
const StablePeriod = 100 * time.Millisecond

// emptyStablePeriod is the same for files that are empty. Most writers begin with an
// empty file, and on a busy disk the kernel alone can delay the write after a
// truncate for longer than StablePeriod.
const emptyStablePeriod = time.Second

// A listedFile is one file of a store, as it was when it was looked at.
type listedFile struct {
	name        string // SECRET, or BUNDLE/FIELD
	size        int64
	fingerprint string // differs where the file does
}

// A listing is all the files of a store, sorted by name.
type listing struct {
	files      []listedFile
	lastChange time.Time // the latest change of any file, or of its metadata
	// lastEmptyChange is the latest change of a file that is empty.
	lastEmptyChange time.Time
}

// add adds a file that changed at that time, and keeps the latest times.
func (l *listing) add(f listedFile, changedAt time.Time) {
	l.files = append(l.files, f)
	if changedAt.After(l.lastChange) {
		l.lastChange = changedAt
	}
	if f.size == 0 && changedAt.After(l.lastEmptyChange) {
		l.lastEmptyChange = changedAt
	}
}

// remainingWait returns for how long the files must still not change. A clock that
// is ahead of this machine's does not make it longer.
func (l listing) remainingWait() time.Duration {
	return max(min(StablePeriod-time.Since(l.lastChange), StablePeriod), min(emptyStablePeriod-time.Since(l.lastEmptyChange), emptyStablePeriod))
}

func (l listing) equal(other listing) bool { return slices.Equal(l.files, other.files) }

// addInfo adds the file with that name in dir.
func (l *listing) addInfo(dir, name string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: the system says nothing of it", filepath.Join(dir, name))
	}
	fingerprint := fmt.Sprint(st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim)
	l.add(listedFile{name, info.Size(), fingerprint}, time.Unix(st.Ctim.Unix()))
	return nil
}
