package sidecar

import (
	"errors"
	"io/fs"
	"log/slog"

	"github.com/fsnotify/fsnotify"
)

// A watcher turns file system events into one hint: something moved. What it
// was is found out by reading everything, so events that are merged, lost in an
// overflow or about something else do no harm.
type watcher struct {
	fs   *fsnotify.Watcher // nil: there is none to be had
	hint chan struct{}
	done chan struct{}
	log  *slog.Logger
	said bool // that not everything can be watched
	// concerns says whether an event's path is the store's at all.
	concerns func(path string) bool
}

// newWatcher watches nothing yet. Where the system gives out no more watchers
// (inotify(7), max_user_instances) it never hints, and polling does it all.
func newWatcher(log *slog.Logger, concerns func(path string) bool) *watcher {
	w := &watcher{hint: make(chan struct{}, 1), done: make(chan struct{}), log: log, concerns: concerns}
	var err error
	if w.fs, err = fsnotify.NewWatcher(); err != nil {
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
		case event, ok := <-w.fs.Events:
			if !ok {
				return
			}
			if !w.concerns(event.Name) {
				continue
			}
		case _, ok := <-w.fs.Errors: // an overflow: more than a hint's worth
			if !ok {
				return
			}
		}
		select {
		case w.hint <- struct{}{}:
		default:
		}
	}
}

func (w *watcher) events() <-chan struct{} { return w.hint }

// watch watches these directories and no others. It reports whether one of them
// was not watched before: what came into it before then had no event.
func (w *watcher) watch(dirs []string) (added bool) {
	if w.fs == nil {
		return false
	}
	watched := map[string]bool{}
	for _, dir := range w.fs.WatchList() {
		watched[dir] = true
	}
	for _, dir := range dirs {
		// Adding a path again is how a directory that was replaced under its
		// name is watched anew; it costs nothing where it was not.
		if err := w.fs.Add(dir); err != nil {
			// One that does not exist is awaited in the directory above it.
			if !errors.Is(err, fs.ErrNotExist) && !w.said {
				w.said = true
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
		w.fs.Remove(dir)
	}
	return added
}

func (w *watcher) close() {
	if w.fs != nil {
		w.fs.Close()
	}
	<-w.done
}
