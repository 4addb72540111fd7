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

// maxUnstablePeriod is how long a store on a file system may change before it is bad.
const maxUnstablePeriod = 2 * time.Second

// ErrUnstable is the error of a store whose files changed during every attempt to
// read them.
var ErrUnstable = errors.New("it changes while it is read")

// readStable reads a store once its files have stopped changing. Otherwise it
// could read a file that was truncated and not yet written, or one of two files
// that belong together.
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

// tryRead is one attempt of readStable. It returns ErrUnstable if the listing
// changes meanwhile.
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
		// Looked at now and then, so that what is written meanwhile is not waited for.
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

// readFile reads a file that had size bytes a moment ago.
func readFile(path string, size int64) ([]byte, error) {
	// Without O_NONBLOCK a FIFO that came in its place would hang the sidecar.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, asUnstable(err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, size+1))
	if err != nil {
		return nil, asUnstable(err)
	}
	if int64(len(content)) != size {
		return nil, fmt.Errorf("%s: %w", path, ErrUnstable)
	}
	return content, nil
}

// asUnstable adds ErrUnstable to the error of a file that no longer exists.
func asUnstable(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, ErrUnstable)
	}
	return err
}
