package sidecar

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/keyhatch/keyhatch/sidecar/store"
)

// unstableGracePeriod is the time for which a store can change without becoming stable
// before the sidecar logs an error.
const unstableGracePeriod = 10 * time.Second

// A storeReader reads the store in a goroutine and keeps the last set that it could
// read. Run's goroutine owns all fields. The reading goroutine uses watcher and store
// while isReading is true.
type storeReader struct {
	store        store.Store
	watcher      *watcher
	log          *slog.Logger
	results      chan readResult // receives one result if isReading is true
	isReading    bool
	rereadNeeded bool // the store changed during the read

	lastGood      store.Set // nil until the first successful read
	lastError     string    // the last error that was logged, or "" if the store is readable
	unstableSince time.Time // zero if the store is stable
}

func newStoreReader(source store.Store, watcher *watcher, log *slog.Logger) *storeReader {
	return &storeReader{store: source, watcher: watcher, log: log, results: make(chan readResult)}
}

// A readResult is the result of one read of the store.
type readResult struct {
	set store.Set
	err error
	// dirsAdded is true if the watcher watches a new directory since this read. Earlier
	// changes in that directory caused no event, so the store must be read again.
	dirsAdded bool
}

// startReading starts a read. If a read is in progress, startReading sets rereadNeeded,
// and Run starts another read afterwards.
func (r *storeReader) startReading(ctx context.Context) {
	r.rereadNeeded = r.isReading
	if r.isReading {
		r.log.Debug("the store changed during the read; reading it again")
		return
	}
	r.isReading = true
	go func() { r.results <- r.read(ctx) }() // ends with ctx; wait waits for it
}

// wait waits for the read that is in progress, if any. The read ends when its ctx ends.
func (r *storeReader) wait() {
	if r.isReading {
		<-r.results
	}
}

// read updates the watched directories and reads the store. It runs in the reading
// goroutine.
func (r *storeReader) read(ctx context.Context) (result readResult) {
	result.dirsAdded = r.watcher.setDirs(r.store.WatchDirs())
	if result.set, result.err = r.store.Read(ctx); result.err == nil {
		// A set that is too large to push is an error of the store.
		var line []byte
		line, result.err = result.set.EncodePush()
		clear(line)
	}
	return result
}

// acceptResult stores the set of a successful read in lastGood. It logs each error
// once, and once that the store is readable again. It returns true if the store must
// be read again soon, because it is changing or another directory is now watched.
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
			r.log.Error("cannot read the store; the broker keeps the previous secrets", attributes...)
		}
		return result.dirsAdded
	}
	if r.lastError != "" {
		r.lastError = ""
		r.log.Info("the store is readable again")
	}
	r.lastGood = result.set
	return result.dirsAdded
}

// hintFor returns a hint for an error of the operating system, or "". The errors of
// package store explain the rule themselves.
func hintFor(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "create or mount the store, or correct --store; the sidecar does not need a restart to find a new store"
	case errors.Is(err, fs.ErrPermission):
		return "give the sidecar's user read permission, for example with chown or chmod"
	}
	return ""
}
