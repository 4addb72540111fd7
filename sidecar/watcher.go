package sidecar

import (
	"errors"
	"io/fs"
	"log/slog"

	"github.com/fsnotify/fsnotify"
)

// A watcher turns file system events into one signal: the store may have changed.
// The caller then reads everything, so events that are merged, lost in an
// overflow or about something else do no harm.
type watcher struct {
	inotify       *fsnotify.Watcher // nil if the system has no instance left
	changes       chan struct{}
	done          chan struct{}
	log           *slog.Logger
	limitReported bool // that a directory cannot be watched
	// isRelevant reports whether an event at path can mean a change of the store.
	isRelevant func(path string) bool
}

// newWatcher watches nothing yet. Where the system gives out no more watchers
// (inotify(7), max_user_instances) it never sends, and polling finds every change.
func newWatcher(log *slog.Logger, isRelevant func(path string) bool) *watcher {
	w := &watcher{changes: make(chan struct{}, 1), done: make(chan struct{}), log: log, isRelevant: isRelevant}
	var err error
	if w.inotify, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("the store cannot be watched; polling finds its changes", "error", err)
		close(w.done)
		return w
	}
	go w.run() // ended, and waited for, by close
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
		case _, ok := <-w.inotify.Errors: // an overflow: events were lost
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

// setDirs watches these directories and no others. It reports whether one of them
// was not watched before: what came into it before then had no event.
func (w *watcher) setDirs(dirs []string) (added bool) {
	if w.inotify == nil {
		return false
	}
	watched := map[string]bool{}
	for _, dir := range w.inotify.WatchList() {
		watched[dir] = true
	}
	for _, dir := range dirs {
		// Adding a path again is how a directory that was replaced under its
		// name is watched anew; it costs nothing where it was not.
		if err := w.inotify.Add(dir); err != nil {
			// One that does not exist is awaited in the directory above it.
			if !errors.Is(err, fs.ErrNotExist) && !w.limitReported {
				w.limitReported = true
				w.log.Warn("not everything can be watched; polling finds what events do not", "error", err,
					"hint", "raise fs.inotify.max_user_watches with sysctl, or lower --poll")
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

func (w *watcher) close() {
	if w.inotify != nil {
		w.inotify.Close()
	}
	<-w.done
}
