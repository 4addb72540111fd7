package sidecar

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/keyhatch/keyhatch/sidecar/store"
)

// unstableGracePeriod is how long a store may change before that is logged.
const unstableGracePeriod = 10 * time.Second

// A storeReader reads the store in a goroutine and keeps the last good set.
// Run's goroutine owns all its fields, except that while isReading is true the
// reading goroutine uses the watcher and the store.
type storeReader struct {
	store        store.Store
	watcher      *watcher
	log          *slog.Logger
	results      chan readResult // receives one result if isReading is true
	isReading    bool
	rereadNeeded bool // the store changed during the read

	lastGood      store.Set // nil until the store was read once
	lastError     string    // logged already; empty if the store is good
	unstableSince time.Time // zero if the store is stable
}

func newStoreReader(source store.Store, watcher *watcher, log *slog.Logger) *storeReader {
	return &storeReader{store: source, watcher: watcher, log: log, results: make(chan readResult)}
}

// A readResult is the result of one read of the store.
type readResult struct {
	set store.Set
	err error
	// dirsAdded means that a directory was not watched before. Changes in it before
	// that sent no event.
	dirsAdded bool
}

// startReading starts a read, or has Run start one after the current read.
func (r *storeReader) startReading(ctx context.Context) {
	r.rereadNeeded = r.isReading
	if r.isReading {
		r.log.Debug("the store moved while it was read: it will be read again")
		return
	}
	r.isReading = true
	go func() { r.results <- r.read(ctx) }() // wait waits for it; it ends with ctx
}

// wait waits for the current read, which ends when its ctx ends.
func (r *storeReader) wait() {
	if r.isReading {
		<-r.results
	}
}

// read watches and reads the store. It runs in the reading goroutine.
func (r *storeReader) read(ctx context.Context) (result readResult) {
	result.dirsAdded = r.watcher.setDirs(r.store.WatchDirs())
	if result.set, result.err = r.store.Read(ctx); result.err == nil {
		// A set that is too large is bad like one that cannot be read.
		var line []byte
		line, result.err = result.set.EncodePush()
		clear(line)
	}
	return result
}

// acceptResult makes a good result the set to push. It logs once that the store is
// bad, and once that it is good again. It reports whether to read again soon, because
// a directory was not watched before or the store is changing.
func (r *storeReader) acceptResult(ctx context.Context, result readResult) (retrySoon bool) {
	if ctx.Err() != nil {
		return false
	}
	if errors.Is(result.err, store.ErrUnstable) {
		if r.unstableSince.IsZero() {
			r.unstableSince = time.Now()
		}
		if time.Since(r.unstableSince) < unstableGracePeriod {
			return true // a program is writing to the store
		}
	} else {
		r.unstableSince = time.Time{}
	}
	if result.err != nil {
		if result.err.Error() != r.lastError {
			r.lastError = result.err.Error()
			attributes := []any{"error", result.err}
			if hint := hintFor(result.err); hint != "" {
				attributes = append(attributes, "hint", hint)
			}
			r.log.Error("the store cannot be used; the broker keeps the last good set until it can", attributes...)
		}
		return result.dirsAdded
	}
	if r.lastError != "" {
		r.lastError = ""
		r.log.Info("the store is well again")
	}
	r.lastGood = result.set
	return result.dirsAdded
}

// hintFor returns a hint for errors of the system. The store's own errors name the
// rule, and need none.
func hintFor(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "create it, mount it, or correct --store; it is found when it comes"
	case errors.Is(err, fs.ErrPermission):
		return "let the sidecar's user read it: chown or chmod it"
	}
	return ""
}
