package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// maxUnstablePeriod is how long readStable repeats its attempts to read a store that is
// changing. If the files still change after this time, readStable returns ErrUnstable.
const maxUnstablePeriod = 2 * time.Second

// readStable reads the files of a store. It waits until the files that it uses have not changed for
// stablePeriod. Otherwise readStable could read two files that belong together when only one of these
// files was updated. If a program is still writing a file, the function read uses the old value of the
// file's secret, so readStable does not wait for the program. If no earlier read succeeded, there is no
// old value, and readStable waits for the program for at most maxUnstablePeriod. readStable does not
// wait for the content of an empty file.
//
// If read returns a Reading together with an error, readStable only uses the times in the Reading.
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
		if reading == nil {
			reading = newReading()
		} else {
			previous = previous.withTimesOf(reading)
		}
		wait := remainingWait(before, reading)
		if unchanged != nil && sameFiles(before, *unchanged, reading) {
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
		isStable := sameFiles(before, after, reading)
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

// remainingWait returns how long the files that r uses, and the directory, must stay
// unchanged before readStable can return r. If the clock of the file system is ahead of the
// local clock, a change time can be in the future. Even then, the wait is at most
// stablePeriod.
func remainingWait(l listing, r *Reading) time.Duration {
	wait := min(stablePeriod-time.Since(l.dirChangedAt), stablePeriod)
	for _, f := range l.files {
		if r.Unusable[f.path] == "" {
			wait = max(wait, min(stablePeriod-time.Since(f.changedAt), stablePeriod))
		}
	}
	return max(wait, 0)
}

// sameFiles reports whether two listings contain the same files of the same directories, and
// whether the files that r uses have not changed.
func sameFiles(l, other listing, r *Reading) bool {
	return l.dir == other.dir && maps.Equal(l.bundles, other.bundles) && slices.EqualFunc(l.files, other.files, func(a, b listedFile) bool {
		return a.path == b.path && a.reason == b.reason && (a.fileVersion == b.fileVersion || r.Unusable[a.path] != "")
	})
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
