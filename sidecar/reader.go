package sidecar

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// unstableGracePeriod is how long reading the store can fail with store.ErrUnstable
// before the sidecar logs an error.
const unstableGracePeriod = 10 * time.Second

// A storeReader reads the store in a separate goroutine. It stores the set of the last
// successful read in lastGood. Run's goroutine owns all fields of a storeReader. The
// reading goroutine uses only the fields watcher, store, and readStore, and only while
// isReading is true.
type storeReader struct {
	store        store.Store
	readStore    func(context.Context) (*store.LockedSet, error)
	watcher      *watcher
	log          *slog.Logger
	results      chan readResult // the reading goroutine sends one result at the end of each read
	isReading    bool
	rereadNeeded bool // true if the store changed during the current read

	lastGood      *store.LockedSet // nil until the first successful read
	lastError     string           // the last error that was logged, or "" if the store is readable
	unstableSince time.Time        // when reads began to fail with ErrUnstable; zero if they do not
}

func newStoreReader(source store.Store, read func(context.Context) (*store.LockedSet, error), watcher *watcher, log *slog.Logger) *storeReader {
	return &storeReader{store: source, readStore: read, watcher: watcher, log: log, results: make(chan readResult)}
}

// A readResult is the result of one read of the store.
type readResult struct {
	set *store.LockedSet // nil if err is not nil
	err error
	// dirsAdded is true if the watcher began to watch another directory for this read.
	// The store must then be read again, because earlier changes in this directory caused
	// no event.
	dirsAdded bool
}

// startReading starts a read of the store. If another read is in progress, startReading
// only sets rereadNeeded. Run then starts the next read after the current read has ended.
func (r *storeReader) startReading(ctx context.Context) {
	r.rereadNeeded = r.isReading
	if r.isReading {
		r.log.Debug("the store changed during a read; the sidecar will read the store again")
		return
	}
	r.isReading = true
	go func() { r.results <- r.read(ctx) }() // ctx ends this goroutine; close waits for its end
}

// close waits until no read is in progress, and wipes the secrets. A read ends when its ctx
// ends.
func (r *storeReader) close() {
	if r.isReading {
		r.replaceSet((<-r.results).set)
	}
	r.replaceSet(nil)
}

// replaceSet wipes the set in lastGood and replaces it with set.
func (r *storeReader) replaceSet(set *store.LockedSet) {
	r.lastGood.Free()
	r.lastGood = set
}

// read updates the watched directories and reads the store. It runs in the reading
// goroutine.
func (r *storeReader) read(ctx context.Context) (result readResult) {
	result.dirsAdded = r.watcher.setDirs(r.store.WatchDirs())
	result.set, result.err = r.readStore(ctx)
	return result
}

// acceptResult stores the set of a successful read in lastGood. If the new set equals
// lastGood, acceptResult wipes the new set instead. It logs an error only if
// the error differs from the last logged error. After an error, it logs once that the
// store is readable again.
//
// acceptResult returns true if the store must be read again soon, because the store is
// still changing or because the watcher began to watch another directory.
func (r *storeReader) acceptResult(ctx context.Context, result readResult) (retrySoon bool) {
	if ctx.Err() != nil {
		result.set.Free()
		return false
	}
	if errors.Is(result.err, store.ErrUnstable) {
		if r.unstableSince.IsZero() {
			r.unstableSince = time.Now()
		}
		if time.Since(r.unstableSince) < unstableGracePeriod {
			return true // a program is probably still writing to the store
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
			r.log.Error("cannot read the store; the secrets in the broker do not change", attributes...)
		}
		return result.dirsAdded
	}
	if r.lastError != "" {
		r.lastError = ""
		r.log.Info("the store is readable again")
	}
	if r.lastGood != nil && r.lastGood.Equal(result.set) {
		result.set.Free()
	} else {
		r.replaceSet(result.set)
		if result.set.Memory() == schema.MemoryUnlocked {
			r.log.Warn("secrets are in memory that can be swapped out", "fix", "raise RLIMIT_MEMLOCK: LimitMEMLOCK=64M in a unit, ulimit -l in a shell")
		}
	}
	return result.dirsAdded
}

// hintFor returns a hint if the store does not exist or if the sidecar has no permission
// to read the store. For all other errors, hintFor returns "", because an error of
// package store already names the rule that the store breaks.
func hintFor(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "create or mount the store, or correct --store; the sidecar finds a new store without a restart"
	case errors.Is(err, fs.ErrPermission):
		return "give the user of the sidecar process permission to read the store, for example with chown or chmod"
	}
	return ""
}
