package sidecar

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/keyhatch/keyhatch/sidecar/store"
)

// patience is how long a store may be at work without a word about it.
const patience = 10 * time.Second

// A reader reads the store, in a goroutine of its own, and keeps the last good
// set. All its fields are Run's; while reading is true the watcher and the store
// are the goroutine's.
type reader struct {
	store    store.Store
	watcher  *watcher
	log      *slog.Logger
	readings chan reading // of the goroutine, where reading is true
	reading  bool
	stale    bool // something moved while it read

	set      store.Set // the last good one; nil: none yet
	storeErr string    // said already
	moving   time.Time // since when it does not stand still; zero: it does
}

func newReader(from store.Store, w *watcher, log *slog.Logger) *reader {
	return &reader{store: from, watcher: w, log: log, readings: make(chan reading)}
}

// A reading is what came of reading the store once.
type reading struct {
	set store.Set
	err error
	// again says that a directory was not watched before: what came into it before
	// then had no event.
	again bool
}

// begin has the store read, now or as soon as the reading under way is done.
func (r *reader) begin(ctx context.Context) {
	r.stale = r.reading
	if r.reading {
		r.log.Debug("the store moved while it was read: it will be read again")
		return
	}
	r.reading = true
	go func() { r.readings <- r.read(ctx) }() // waited for by finish; ends with ctx
}

// finish waits for the reading under way. ctx has ended.
func (r *reader) finish() {
	if r.reading {
		<-r.readings
	}
}

// read reads the store. It is the reader's part.
func (r *reader) read(ctx context.Context) (done reading) {
	done.again = r.watcher.watch(r.store.WatchDirs())
	if done.set, done.err = r.store.Read(ctx); done.err == nil {
		// A set that is too large is bad like one that cannot be read.
		var line []byte
		line, done.err = done.set.EncodePush()
		clear(line)
	}
	return done
}

// take makes what was read the set to push, and says, once each, that the store
// is bad and that it is well. It reports whether to look again soon: at a
// directory that was not watched before, or at a store that does not stand still.
func (r *reader) take(ctx context.Context, done reading) (again bool) {
	if ctx.Err() != nil {
		return false
	}
	if errors.Is(done.err, store.ErrUnstable) {
		if r.moving.IsZero() {
			r.moving = time.Now()
		}
		if time.Since(r.moving) < patience {
			return true // somebody is at work: look again soon
		}
	} else {
		r.moving = time.Time{}
	}
	if done.err != nil {
		if done.err.Error() != r.storeErr {
			r.storeErr = done.err.Error()
			attributes := []any{"error", done.err}
			if hint := hintFor(done.err); hint != "" {
				attributes = append(attributes, "hint", hint)
			}
			r.log.Error("the store cannot be used; the broker keeps the last good set until it can", attributes...)
		}
		return done.again
	}
	if r.storeErr != "" {
		r.storeErr = ""
		r.log.Info("the store is well again")
	}
	r.set = done.set
	return done.again
}

// hintFor says what to do about errors that are the system's: the sidecar's own
// name their rule, which says it.
func hintFor(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "create it, mount it, or correct --store; it is found when it comes"
	case errors.Is(err, fs.ErrPermission):
		return "let the sidecar's user read it: chown or chmod it"
	}
	return ""
}
