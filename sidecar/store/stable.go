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

// readStable reads the files of a store. It waits until the files that it uses have not changed
// for stablePeriod. Otherwise it could read two files that belong together when only one of
// these files was updated. It does not wait for a file that is not complete, because read uses
// the old value of its secret. Only if no read has succeeded before, there is no old value, and
// readStable waits for at most maxUnstablePeriod.
func readStable(ctx context.Context, previous *Reading, listFiles func() (listing, error), read func(l listing, previous *Reading) (*Reading, error)) (*Reading, error) {
	if previous == nil {
		previous = &Reading{}
	}
	deadline := time.Now().Add(maxUnstablePeriod)
	var unchanged *listing // the listing before the last wait, or nil if the files changed during the wait
	for {
		before, err := listFiles()
		if err != nil {
			return nil, err
		}
		reading, readErr := read(before, previous)
		if readErr != nil {
			reading = newReading()
		} else {
			previous = previous.withTimesOf(reading)
		}
		wait := before.remainingWait(reading)
		if unchanged != nil && before.equal(*unchanged, reading) {
			wait = 0
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		after, err := listFiles()
		if err != nil {
			return nil, err
		}
		expired := time.Now().After(deadline)
		isStable := before.equal(after, reading)
		switch {
		case isStable && wait > 0 && !expired:
			// Read the files again, because a change directly after the first read can have
			// the same timestamp as an earlier change.
			unchanged = &before
			continue
		case !isStable && expired:
			return nil, ErrUnstable
		case isStable && readErr != nil && (expired || !errors.Is(readErr, ErrUnstable)):
			return nil, readErr
		case isStable && readErr == nil && (expired || previous.Set != nil || !reading.WaitsForFile()):
			return reading, nil
		}
		if err := sleep(ctx, stablePeriod/2); err != nil {
			return nil, err
		}
	}
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

// readFile reads a file, and reports whether a process has the file open for writing. If the file
// has changed since the listing, content is nil if a process has the file open for writing.
// Otherwise readFile returns an error that wraps ErrUnstable.
func readFile(listed listedFile) (content []byte, writers writerState, err error) {
	// Use O_NONBLOCK, because a FIFO may have replaced the file since the listing.
	// Without O_NONBLOCK, opening a FIFO would block.
	f, err := os.OpenFile(listed.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, asUnstable(describePathError(err))
	}
	defer f.Close()
	writers = leaseFile(f)
	info, err := f.Stat()
	if err != nil {
		return nil, 0, describePathError(err)
	}
	opened, err := newListedFile(listed.name, listed.path, info)
	if err != nil {
		return nil, 0, err
	}
	isSame := opened.fingerprint == listed.fingerprint
	if isSame {
		content, err = io.ReadAll(io.LimitReader(f, listed.size+1))
		if err != nil {
			return nil, 0, asUnstable(describePathError(err))
		}
		isSame = int64(len(content)) == listed.size
	}
	switch {
	case isSame:
		return content, writers, nil
	case writers == writersExist:
		return nil, writers, nil
	}
	return nil, 0, fmt.Errorf("%s: %w", listed.path, ErrUnstable)
}

// asUnstable wraps err together with ErrUnstable if err means that a file no longer
// exists. It returns all other errors unchanged.
func asUnstable(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, ErrUnstable)
	}
	return err
}
