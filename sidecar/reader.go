package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// unstableGracePeriod is how long reading the store can fail with store.ErrUnstable
// before the sidecar logs an error.
const unstableGracePeriod = 10 * time.Second

// unusableGracePeriod is how long a file must be unusable before the sidecar logs a warning. For an
// unstable or replaced store, see gracePeriod.
const unusableGracePeriod = time.Second

// maxFileRetryDelay limits the delay before the sidecar reads the store again because a file is
// not complete. The delay doubles after each read. Without these reads, the sidecar would not
// notice that a program has closed the file, because closing a file causes no file event.
const maxFileRetryDelay = time.Second

// maxPrepareTime limits how long prepare waits for its goroutine, which can block if a store hangs.
const maxPrepareTime = 10 * time.Second

// A ReadFunc reads the store. previous is the result of the last call that returned no error, or
// empty if there was no such call.
type ReadFunc func(ctx context.Context, previous store.LockedReading) (store.LockedReading, error)

// A storeReader reads the store in a separate goroutine. It stores the result of the last successful
// read in lastGood. Run's goroutine owns all fields of a storeReader. The reading goroutine uses only
// the fields watcher, store, readStore, lastGood, results, preparing, and prepareUntil, and only while
// isReading is true. If the store hangs, prepare's goroutine uses watcher and store even after the read
// has ended.
type storeReader struct {
	store        store.Store
	readStore    ReadFunc
	watcher      *watcher
	log          *slog.Logger
	results      chan readResult // the reading goroutine sends one result at the end of each read
	isReading    bool
	rereadNeeded bool // true if another read must follow the current read

	lastGood      store.LockedReading // lastGood.Set is nil until the first successful read
	lastError     string              // the last error that was logged, or "" if the store is readable
	isReplaced    bool                // true if lastError is ErrReplaced
	confirmed     bool                // true after the owner has confirmed that secrets are missing
	unstableSince time.Time           // since when all reads have failed with ErrUnstable, or zero

	unusable       map[string]*unusableFile // by path
	fileRetryDelay time.Duration            // the delay before the current retry, or 0 if no retry is necessary

	reportedLeftovers map[string]bool             // the logged temporary files that could not be removed
	reportedBackups   map[string]bool             // the logged files that look like backups
	reportedPEM       map[string]store.PEMProblem // the logged PEM texts

	preparing    chan readResult // receives the result of prepare's goroutine; nil if no result is expected
	prepareUntil time.Time       // the time at which prepare stops waiting
}

// An unusableFile describes a problem in State.Unusable that has not ended.
type unusableFile struct {
	since    time.Time
	reported store.Reason // the last reason that was logged, or ""
}

func newStoreReader(source store.Store, read ReadFunc, watcher *watcher, log *slog.Logger) *storeReader {
	return &storeReader{store: source, readStore: read, watcher: watcher, log: log, results: make(chan readResult),
		unusable: map[string]*unusableFile{}, reportedLeftovers: map[string]bool{}, reportedBackups: map[string]bool{}}
}

// A readResult is the result of one read of the store.
type readResult struct {
	reading store.LockedReading // reading.Set is nil if err is not nil
	err     error
	// dirsAdded is true if the watcher began to watch another directory. The store must then
	// be read again, because earlier changes in this directory caused no event.
	dirsAdded bool
	// removedLeftovers contains the paths of the temporary files of killed edits that were
	// removed. leftovers contains the paths of the temporary files that could not be removed.
	removedLeftovers, leftovers []string
	backups                     []string // see store.Backups
}

// isReplaced reports whether the read found that the store, one of several stores, or a bundle was
// replaced and that secrets or fields are missing in it.
func (r readResult) isReplaced() bool {
	return errors.Is(r.err, store.ErrReplaced) || r.err == nil && r.reading.HasReplaced()
}

// startReading starts a read of the store. If another read is in progress, startReading
// only sets rereadNeeded. Run then starts the next read after the current read has ended.
func (r *storeReader) startReading(ctx context.Context) {
	r.rereadNeeded = r.isReading
	if r.isReading {
		r.log.Debug("the sidecar will read the store again after the current read")
		return
	}
	r.isReading = true
	go func() { r.results <- r.read(ctx) }() // ctx ends this goroutine; close waits for its end
}

// maxCloseTime is how long close waits for the end of a read.
const maxCloseTime = 10 * time.Second

// close waits until no read is in progress, and wipes the secrets. A read ends when its ctx
// ends. If the process that reads the store cannot be killed, for example because a file system does
// not answer, close returns after maxCloseTime. The secrets are then not wiped, because the read can
// still use them. The kernel frees their memory when the sidecar exits.
func (r *storeReader) close() {
	if r.isReading {
		select {
		case result := <-r.results:
			result.reading.Set.Free()
		case <-time.After(maxCloseTime):
			return
		}
	}
	r.replaceLastGood(store.LockedReading{})
}

// replaceLastGood replaces lastGood with next. It wipes the old set, unless next contains the same
// LockedSet.
func (r *storeReader) replaceLastGood(next store.LockedReading) {
	if r.lastGood.Set != next.Set {
		r.lastGood.Set.Free()
	}
	r.lastGood = next
}

// Run calls confirmReplaced after the owner has requested a push. If the sidecar has reported that the
// store was replaced, confirmReplaced makes the sidecar use the replaced store.
func (r *storeReader) confirmReplaced() {
	r.confirmed = r.isReplaced || r.lastError == "" && r.lastGood.HasReplaced()
}

// acceptReplaced makes the next read use the replaced stores and bundles, although secrets are missing.
func (r *storeReader) acceptReplaced() {
	r.confirmed = false
	r.lastGood.State = r.lastGood.AcceptReplaced(r.isReplaced)
}

// read removes the temporary files of killed edits, updates the watched directories, and reads the
// store. It runs in the reading goroutine.
func (r *storeReader) read(ctx context.Context) readResult {
	result := r.prepare(ctx)
	result.reading, result.err = r.readStore(ctx, r.lastGood)
	return result
}

// prepare removes the temporary files of killed edits and updates the watched directories. If a store
// hangs, for example because the server of a network file system does not answer, prepare returns an
// empty result after maxPrepareTime, so that the sidecar can read the other stores. The work continues in
// another goroutine. After this goroutine has ended, the next call of prepare returns the result of the
// goroutine.
func (r *storeReader) prepare(ctx context.Context) readResult {
	if r.preparing == nil {
		preparing := make(chan readResult, 1)
		r.preparing, r.prepareUntil = preparing, time.Now().Add(maxPrepareTime)
		go func() { // ends when the store answers
			var result readResult
			result.removedLeftovers, result.leftovers = store.RemoveLeftovers(r.store)
			result.backups = store.Backups(r.store)
			result.dirsAdded = r.watcher.setDirs(r.store.WatchDirs())
			preparing <- result
		}()
	}
	// All calls of prepare together wait at most maxPrepareTime for the same goroutine.
	timeout := time.NewTimer(time.Until(r.prepareUntil))
	defer timeout.Stop()
	select {
	case result := <-r.preparing:
		r.preparing = nil
		return result
	case <-timeout.C:
	case <-ctx.Done():
	}
	select { // after a timeout, use the result if there is one
	case result := <-r.preparing:
		r.preparing = nil
		return result
	default:
		return readResult{}
	}
}

// acceptResult stores the result of a successful read in lastGood. If the new set equals the
// old set, acceptResult wipes the new set and keeps the old set. acceptResult logs an error
// only if the error differs from the last logged error. After an error, acceptResult logs
// once that the store is readable again.
//
// If the store must be read again, acceptResult returns the delay before this read. This is
// necessary if the store is still changing, if a file is not complete or has just become unusable,
// or if the watcher began to watch another directory. Otherwise acceptResult returns 0.
func (r *storeReader) acceptResult(ctx context.Context, result readResult) (retryDelay time.Duration) {
	if ctx.Err() != nil {
		result.reading.Set.Free()
		return 0
	}
	r.reportLeftovers(result)
	r.reportBackups(result)
	if result.dirsAdded {
		retryDelay = quietPeriod
	}
	if errors.Is(result.err, store.ErrUnstable) {
		if r.unstableSince.IsZero() {
			r.unstableSince = time.Now()
		}
		if time.Since(r.unstableSince) < unstableGracePeriod {
			return quietPeriod // a program is probably still writing to the store
		}
	} else {
		r.unstableSince = time.Time{}
	}
	r.confirmed = r.confirmed && result.isReplaced()
	if result.err != nil {
		if result.err.Error() != r.lastError {
			r.lastError = result.err.Error()
			message, attributes := "cannot read the store; the secrets in the broker do not change", []any{"error", result.err}
			hint := hintFor(result.err)
			if r.isReplaced = errors.Is(result.err, store.ErrReplaced); r.isReplaced {
				message, hint = "the store was replaced, and secrets are missing; the secrets in the broker do not change", confirmHint(os.Getpid())
			}
			if hint != "" {
				attributes = append(attributes, "hint", hint)
			}
			r.log.Error(message, attributes...)
		}
		return retryDelay
	}
	next := result.reading
	isFirst := r.lastGood.Set == nil
	if !isFirst {
		r.reportRemovals(next.Set.Names())
	}
	if r.lastGood.Set != nil && r.lastGood.Set.Equal(next.Set) {
		next.Set.Free()
		next.Set = r.lastGood.Set
	} else if next.Set.Memory() == schema.MemoryUnlocked {
		r.log.Warn("secrets are in memory that can be swapped out", "fix", "raise RLIMIT_MEMLOCK: LimitMEMLOCK=64M in a unit, ulimit -l in a shell")
	}
	r.replaceLastGood(next)
	r.reportPEM()
	if fileRetryDelay := r.acceptUnusable(); retryDelay == 0 {
		retryDelay = fileRetryDelay
	}
	if !r.isBeingWritten() {
		r.reportReadable(isFirst)
	}
	return retryDelay
}

// reportLeftovers logs the temporary files of killed edits that were removed. For a file that could not
// be removed, it logs a warning once.
func (r *storeReader) reportLeftovers(result readResult) {
	for _, path := range result.removedLeftovers {
		r.log.Info("removed a temporary file of an edit that was killed", "path", path)
	}
	for _, path := range result.leftovers {
		if !r.reportedLeftovers[path] {
			r.reportedLeftovers[path] = true
			r.log.Warn(LeftoverWarning, "path", path, "hint", LeftoverHint(path))
		}
	}
}

// reportBackups logs a warning once for each file that looks like a backup.
func (r *storeReader) reportBackups(result readResult) {
	for _, path := range result.backups {
		if !r.reportedBackups[path] {
			r.reportedBackups[path] = true
			r.log.Warn(BackupWarning, "path", path, "hint", BackupHint)
		}
	}
}

// reportPEM logs a warning once for each PEM text that programs probably cannot use.
func (r *storeReader) reportPEM() {
	for path, problem := range r.lastGood.PEMProblems {
		if r.reportedPEM[path] == problem {
			continue
		}
		message, hint := "a secret is probably a truncated PEM text; the sidecar pushes the secret as it is", "copy the complete file to the store again"
		if problem == store.PEMOneLine {
			message = "a secret is a PEM text without line breaks; the sidecar pushes the secret as it is"
			hint = "in YAML, write NAME: | and the PEM text in the next lines; in dotenv, use double quotes and \\n for each newline"
		}
		r.log.Warn(message, "path", path, "reason", string(problem), "hint", hint)
	}
	r.reportedPEM = r.lastGood.PEMProblems
}

// isBeingWritten reports whether a program is still writing a file of the store. If so, the last read
// succeeded only because it used the old value of this file, so an error that was logged before may not
// have ended. isBeingWritten ignores a file that the sidecar has logged after the grace period.
func (r *storeReader) isBeingWritten() bool {
	for path, reason := range r.lastGood.Unusable {
		if reason.IsTemporary() && r.unusable[path].reported == "" {
			return true
		}
	}
	return false
}

// reportReadable logs that the error in lastError has ended. isFirst is true for the first
// successful read.
func (r *storeReader) reportReadable(isFirst bool) {
	switch {
	case r.lastError == "":
		return
	case r.isReplaced:
		r.log.Info("the sidecar uses the store again")
	case isFirst:
		r.log.Info("the store is readable now")
	default:
		r.log.Info("the store is readable again")
	}
	r.lastError, r.isReplaced = "", false
}

// If the store contained fewer secrets than minReportedRemovals, reportRemovals logs no warning.
const minReportedRemovals = 4

// reportRemovals logs a warning if more than half of the secrets are not in names any more. The
// sidecar pushes the removal in any case, because it can be a revocation.
func (r *storeReader) reportRemovals(names []schema.SecretName) {
	old, removed := r.lastGood.Set.Names(), 0
	for _, name := range old {
		if _, exists := slices.BinarySearch(names, name); !exists {
			removed++
		}
	}
	if len(old) >= minReportedRemovals && removed > len(old)/2 {
		r.log.Warn("most secrets were removed from the store; the sidecar also removes them from the broker",
			"removed", removed, "remaining", len(names))
	}
}

// gracePeriod returns how long the sidecar waits before it logs a problem. For a replaced store or
// bundle, the sidecar does not wait, because the owner can confirm the replacement only after the
// message.
func gracePeriod(reason store.Reason) time.Duration {
	switch {
	case reason.IsReplaced():
		return 0
	case reason.IsUnstableStore():
		return unstableGracePeriod
	}
	return unusableGracePeriod
}

// acceptUnusable logs each problem in lastGood.Unusable that has existed for its grace period, and
// the end of each logged problem. It does not log the same problem again at the next read. If the
// store must be read again because of a problem, acceptUnusable returns the delay before this read.
// Otherwise it returns 0.
func (r *storeReader) acceptUnusable() (retryDelay time.Duration) {
	mustRetry := r.lastGood.WaitsForFile()
	for path, reason := range r.lastGood.Unusable {
		file := r.unusable[path]
		if file == nil {
			file = &unusableFile{since: time.Now()}
			r.unusable[path] = file
		}
		// If a logged problem now has another reason, log the new reason only if it is not temporary.
		isNew := file.reported == "" || (!reason.IsTemporary() && file.reported != reason)
		if isNew && time.Since(file.since) >= gracePeriod(reason) {
			file.reported = reason
			level := slog.LevelWarn
			if reason.IsReplaced() {
				level = slog.LevelError
			}
			attributes := []any{"path", path, "reason", string(reason)}
			if hint := hintForReason(reason, path); hint != "" {
				attributes = append(attributes, "hint", hint)
			}
			message := unusableMessage(reason)
			if r.lastGood.IsFileStore(path) && reason != store.ReasonEmptyValue {
				message = "the file of the store is not complete; the broker keeps the old values of all secrets of this file"
			}
			r.log.Log(context.Background(), level, message, attributes...)
		}
		mustRetry = mustRetry || file.reported == ""
	}
	for path, file := range r.unusable {
		// If a bundle cannot be read, it is unknown whether the problems of its fields have ended.
		if r.lastGood.Unusable[path] == "" && r.lastGood.Unusable[filepath.Dir(path)] == "" {
			delete(r.unusable, path)
			switch {
			case file.reported == "":
			case file.reported == store.ReasonEmptyValue:
				r.log.Info("the value is not empty any more, or the secret was removed", "path", path)
			case file.reported.IsReplacedBundle():
				r.log.Info("the bundle has all fields again, or its missing fields were removed", "path", path)
			case file.reported == store.ReasonDuplicate:
				r.log.Info("the secret is not in two stores any more", "path", path)
			case file.reported.IsStoreFailure():
				r.log.Info("the store is readable again", "path", path)
			default:
				r.log.Info("the sidecar uses the file again, or the file was removed", "path", path)
			}
		}
	}
	if !mustRetry {
		r.fileRetryDelay = 0
		return 0
	}
	r.fileRetryDelay = min(max(2*r.fileRetryDelay, quietPeriod), maxFileRetryDelay)
	return r.fileRetryDelay
}
