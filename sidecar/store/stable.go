package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// maxUnstablePeriod is how long readStable repeats its attempts to read a store that is
// changing. After this time, readStable returns ErrUnstable.
const maxUnstablePeriod = 2 * time.Second

// ErrUnstable is the error that Read returns if the files of the store changed during
// every attempt to read them.
var ErrUnstable = errors.New("the files changed during every attempt to read them")

// readStable waits until the files of a store have stopped changing, and then reads the
// store. Without the wait, readStable could read a file that was truncated and not yet
// written. It could also read two files that belong together when only one of these files
// was updated.
//
// If the timestamps of all files are old enough, readStable reads immediately. If a
// timestamp is recent, or in the future because of clock skew, readStable waits and lists
// the files again.
func readStable(ctx context.Context, listFiles func() (listing, error), read func(listing) (Set, error)) (Set, error) {
	deadline := time.Now().Add(maxUnstablePeriod)
	for {
		set, err := tryRead(ctx, listFiles, read)
		if !errors.Is(err, ErrUnstable) || time.Now().After(deadline) {
			return set, err
		}
		if err := sleep(ctx, StablePeriod/10); err != nil {
			return nil, err
		}
	}
}

// tryRead makes one attempt to read the store for readStable. If the listing of the files
// changes during the attempt, tryRead returns ErrUnstable.
func tryRead(ctx context.Context, listFiles func() (listing, error), read func(listing) (Set, error)) (Set, error) {
	before, err := listFiles()
	if err != nil {
		return nil, err
	}
	stableAt := time.Now().Add(before.remainingWait())
	for remaining := time.Until(stableAt); remaining > 0; remaining = time.Until(stableAt) {
		if err := sleep(ctx, min(remaining, StablePeriod)); err != nil {
			return nil, err
		}
		// List the files again during the wait. If a file has changed, this attempt has
		// failed and the rest of the wait is useless.
		if now, err := listFiles(); err != nil {
			return nil, err
		} else if !now.equal(before) {
			return nil, ErrUnstable
		}
	}
	set, readErr := read(before)
	after, err := listFiles()
	if err != nil {
		return nil, err
	}
	if !before.equal(after) {
		return nil, ErrUnstable
	}
	return set, readErr
}

func sleep(ctx context.Context, duration time.Duration) error {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// readFile reads a file. size is the file's size in the last listing. If the file now has
// another size, readFile returns an error that wraps ErrUnstable.
func readFile(path string, size int64) ([]byte, error) {
	// Use O_NONBLOCK, because a FIFO may have replaced the file since the listing.
	// Without O_NONBLOCK, opening a FIFO would block.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, asUnstable(describePathError(err))
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, size+1))
	if err != nil {
		return nil, asUnstable(describePathError(err))
	}
	if int64(len(content)) != size {
		return nil, fmt.Errorf("%s: %w", path, ErrUnstable)
	}
	return content, nil
}

// asUnstable wraps err together with ErrUnstable if err means that a file no longer
// exists. It returns all other errors unchanged.
func asUnstable(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, ErrUnstable)
	}
	return err
}
