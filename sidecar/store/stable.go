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

// maxUnstablePeriod is how long the files of a store can change before readStable
// returns ErrUnstable.
const maxUnstablePeriod = 2 * time.Second

// ErrUnstable is the error of a store whose files changed during every attempt to
// read them.
var ErrUnstable = errors.New("the files changed during every attempt to read them")

// readStable reads a store once its files have stopped changing. Otherwise it
// could read a file that was truncated and not yet written. Or it could read two
// files that belong together when only one of them was updated.
//
// If the files' own timestamps are old enough, readStable reads at once. If they
// are recent, or in the future because of clock skew, it waits and lists the
// files again.
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

// tryRead is one attempt of readStable. It returns ErrUnstable if the listing changes
// during the attempt.
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
		// List the files again. If a file changed, do not wait for the rest of the time.
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

// readFile reads a file that must have size bytes, its size in the last listing.
func readFile(path string, size int64) ([]byte, error) {
	// If a FIFO has replaced the file, open blocks without O_NONBLOCK.
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

// asUnstable adds ErrUnstable to an error that means that a file no longer exists.
func asUnstable(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, ErrUnstable)
	}
	return err
}
