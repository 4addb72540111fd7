package sidecar

import (
	"errors"
	"io/fs"
	"log/slog"

	"github.com/fsnotify/fsnotify"
)

// A watcher combines file system events into one signal: the store may have changed.
// The caller then reads the complete store. Therefore merged events, lost events, and
// events of other files do no harm.
type watcher struct {
	inotify       *fsnotify.Watcher // nil if the system provides no inotify instance
	changes       chan struct{}
	done          chan struct{}
	log           *slog.Logger
	limitReported bool // true after a warning that a directory cannot be watched
	// isRelevant reports whether an event at path can mean that the store changed.
	isRelevant func(path string) bool
}

// newWatcher returns a watcher that does not watch a directory yet. If the limit of
// inotify instances is reached (inotify(7), max_user_instances), the watcher never
// signals, and only polling detects changes.
func newWatcher(log *slog.Logger, isRelevant func(path string) bool) *watcher {
	w := &watcher{changes: make(chan struct{}, 1), done: make(chan struct{}), log: log, isRelevant: isRelevant}
	var err error
	if w.inotify, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("cannot watch the store; polling still detects changes", "error", err)
		close(w.done)
		return w
	}
	go w.run() // close ends it and waits for it
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
		case _, ok := <-w.inotify.Errors: // the event queue overflowed, and events were lost
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

// setDirs watches exactly these directories. It returns true if at least one of them
// was not watched before. The caller must then read the store again, because earlier
// changes in that directory caused no event.
func (w *watcher) setDirs(dirs []string) (added bool) {
	if w.inotify == nil {
		return false
	}
	watched := map[string]bool{}
	for _, dir := range w.inotify.WatchList() {
		watched[dir] = true
	}
	for _, dir := range dirs {
		// Add paths that are already watched, too. If a directory was replaced by another
		// one with the same name, Add watches the new one. Otherwise it has no effect.
		if err := w.inotify.Add(dir); err != nil {
			// A missing directory is normal: a directory above it is watched until it exists.
			if !errors.Is(err, fs.ErrNotExist) && !w.limitReported {
				w.limitReported = true
				w.log.Warn("cannot watch every directory of the store; polling still detects changes", "error", err,
					"hint", "increase the limit, for example with sudo sysctl fs.inotify.max_user_watches=524288, or set a shorter interval with --poll")
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
