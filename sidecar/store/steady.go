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

// longest is how long a store on a file system may change before it is bad.
const longest = 2 * time.Second

// ErrUnstable is the error of a store whose files changed during every attempt to
// read them.
var ErrUnstable = errors.New("it changes while it is read")

// steady reads files that stand still. scan lists them, read reads what is
// listed: a writer that has truncated a file and not yet written it, or is at
// the second of two files, must not be overheard. A listing that by its own times
// has stood still for long enough is good at once; else, and where those times
// are of a clock that disagrees, it is looked at again.
func steady(ctx context.Context, scan func() (listing, error), read func(listing) (Set, error)) (Set, error) {
	until := time.Now().Add(longest)
	for {
		set, err := once(ctx, scan, read)
		if !errors.Is(err, ErrUnstable) || time.Now().After(until) {
			return set, err
		}
		if err := pause(ctx, StablePeriod/10); err != nil {
			return nil, err
		}
	}
}

func once(ctx context.Context, scan func() (listing, error), read func(listing) (Set, error)) (Set, error) {
	before, err := scan()
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(before.wait())
	for left := time.Until(until); left > 0; left = time.Until(until) {
		if err := pause(ctx, min(left, StablePeriod)); err != nil {
			return nil, err
		}
		// Looked at now and then, so that what is written meanwhile is not waited for.
		if now, err := scan(); err != nil {
			return nil, err
		} else if !now.same(before) {
			return nil, ErrUnstable
		}
	}
	set, readErr := read(before)
	after, err := scan()
	if err != nil {
		return nil, err
	}
	if !before.same(after) {
		return nil, ErrUnstable
	}
	return set, readErr
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
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
		return nil, moved(err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, size+1))
	if err != nil {
		return nil, moved(err)
	}
	if int64(len(content)) != size {
		return nil, fmt.Errorf("%s: %w", path, ErrUnstable)
	}
	return content, nil
}

// moved makes a file that is not there any more a reason to read again.
func moved(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, ErrUnstable)
	}
	return err
}
