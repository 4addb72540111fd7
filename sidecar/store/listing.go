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

// emptyStill is the same for files that are empty. Most writers begin with an
// empty file, and on a busy disk the kernel alone can delay the write after a
// truncate for longer than StablePeriod.
const emptyStill = time.Second

// A file is one file of a Dir, as it was when it was looked at.
type file struct {
	name  string // SECRET, or BUNDLE/FIELD
	size  int64
	stamp string // differs where the file does
}

// A listing is all the files of a Dir, sorted by name.
type listing struct {
	files  []file
	newest time.Time // the latest change of any file, or of its metadata
	// emptied is the latest change of a file that is empty.
	emptied time.Time
}

// note adds a file that changed at that time.
func (l *listing) note(f file, changed time.Time) {
	l.files = append(l.files, f)
	if changed.After(l.newest) {
		l.newest = changed
	}
	if f.size == 0 && changed.After(l.emptied) {
		l.emptied = changed
	}
}

// wait is how long the files must go on standing still. A clock that is ahead of
// this machine's does not make it longer.
func (l listing) wait() time.Duration {
	return max(min(StablePeriod-time.Since(l.newest), StablePeriod), min(emptyStill-time.Since(l.emptied), emptyStill))
}

func (l listing) same(other listing) bool { return slices.Equal(l.files, other.files) }

func (l *listing) add(dir, name string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: the system says nothing of it", filepath.Join(dir, name))
	}
	stamp := fmt.Sprint(st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim)
	l.note(file{name, info.Size(), stamp}, time.Unix(st.Ctim.Unix()))
	return nil
}
