package sidecar

import (
	"errors"
	"io/fs"
	"log/slog"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// A watcher sends a signal on the channel changes when a file event shows that the store may
// have changed. The sidecar then reads the complete store. Therefore the result of the read
// is correct even if events were merged or lost, or if an event was for another file.
type watcher struct {
	inotify       *fsnotify.Watcher // nil if the system provides no inotify instance
	changes       chan struct{}
	done          chan struct{} // closed when the goroutine of the watcher has ended
	log           *slog.Logger
	limitReported bool // true after the watcher logged that it cannot watch a directory
	// isRelevant reports whether an event at path can mean that the store changed.
	isRelevant func(path string) bool
}

// newWatcher returns a watcher that does not watch any directory yet. If the limit of
// inotify instances is reached (max_user_instances in inotify(7)), the watcher never
// sends a signal. Then only polling detects changes of the store.
func newWatcher(log *slog.Logger, isRelevant func(path string) bool) *watcher {
	w := &watcher{changes: make(chan struct{}, 1), done: make(chan struct{}), log: log, isRelevant: isRelevant}
	var err error
	if w.inotify, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("cannot watch the store for changes; polling still detects changes", "error", err)
		close(w.done)
		return w
	}
	go w.run() // close ends this goroutine and waits for it
	return w
}

func (w *watcher) run() {
	defer close(w.done)
	for {
		select {
		case event, ok := <-w.inotify.Events:
			if !ok {
				return
			}
			if !w.isRelevant(event.Name) {
				continue
			}
		// An error means that events may be lost, for example because the kernel's event
		// queue overflowed.
		case _, ok := <-w.inotify.Errors:
			if !ok {
				return
			}
		}
		select {
		case w.changes <- struct{}{}:
		default:
		}
	}
}

// setDirs makes the watcher watch the directories in dirs and no other directories. It skips
// directories that do not exist or cannot be watched. It returns true if the watcher has begun to
// watch another directory. The sidecar must then read the store again, because earlier changes in
// this directory caused no event.
func (w *watcher) setDirs(dirs []string) (added bool) {
	if w.inotify == nil {
		return false
	}
	watched := map[string]bool{}
	for _, dir := range w.inotify.WatchList() {
		watched[dir] = true
	}
	// Two paths can be the same directory, and dirs can contain a path twice. There is only one
	// watch for the directory, and WatchList contains only one of its paths.
	seen := map[dirID]bool{}
	for _, dir := range dirs {
		if id, err := dirIDOf(dir); err == nil {
			if seen[id] {
				continue
			}
			seen[id] = true
		}
		// Call Add also for a path that is already watched. If another directory has
		// replaced the watched directory at this path, Add watches the new directory.
		// Otherwise Add has no effect.
		if err := w.inotify.Add(dir); err != nil {
			// Do not report a missing directory. The watcher also watches an existing
			// directory above the missing directory, so it gets an event when the
			// directory is created.
			if !errors.Is(err, fs.ErrNotExist) && !w.limitReported {
				w.limitReported = true
				hint := "set a shorter interval with --poll"
				if errors.Is(err, syscall.ENOSPC) {
					hint = "increase the limit of inotify watches, for example with sudo sysctl fs.inotify.max_user_watches=524288, or " + hint
				}
				w.log.Warn("cannot watch all directories of the store; polling still detects changes", "path", dir, "error", err, "hint", hint)
			}
			continue
		}
		if !watched[dir] {
			added = true
		}
		delete(watched, dir)
	}
	for dir := range watched {
		w.inotify.Remove(dir)
	}
	return added
}

// A dirID identifies a directory, even if several paths lead to it.
type dirID struct{ device, inode uint64 }

func dirIDOf(path string) (dirID, error) {
	var stat syscall.Stat_t
	err := syscall.Stat(path, &stat)
	return dirID{uint64(stat.Dev), stat.Ino}, err
}

func (w *watcher) close() {
	if w.inotify != nil {
		w.inotify.Close()
	}
	<-w.done
}
