package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestReadStableWaitsForWriter checks that readStable waits for a program that is writing
// a file. The test uses a fake clock. The file is truncated at the start of the test and
// written at writtenAt. clockSkew is how far the clock of the file system is ahead of the
// local clock.
func TestReadStableWaitsForWriter(t *testing.T) {
	const never = time.Hour
	for _, c := range []struct {
		name                  string
		writtenAt, clockSkew  time.Duration
		sizeBefore, sizeAfter int64         // size of the file before and after writtenAt
		readAt                time.Duration // the earliest time at which readStable may read the file
	}{
		{"an old file", -time.Minute, 0, 0, 5, 0},
		{"a new file", 0, 0, 0, 5, StablePeriod},
		{"an empty file that is written late", emptyStablePeriod / 2, 0, 0, 5, emptyStablePeriod/2 + StablePeriod},
		{"an empty file that is never written", never, 0, 0, 0, emptyStablePeriod},
		{"an incomplete file that is completed soon", StablePeriod / 2, 0, 2, 5, StablePeriod/2 + StablePeriod},
		{"a fast file system clock", 0, time.Hour, 0, 5, StablePeriod},
		{"a fast file system clock and a file that stays empty", never, time.Hour, 0, 0, emptyStablePeriod},
		{"a slow file system clock", 0, -time.Hour, 0, 5, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				listFiles := func() (listing, error) {
					f, changedAt := listedFile{"A", c.sizeBefore, "cut"}, start
					if time.Since(start) >= c.writtenAt {
						f, changedAt = listedFile{"A", c.sizeAfter, "written"}, start.Add(c.writtenAt)
					}
					var l listing
					l.add(f, changedAt.Add(c.clockSkew))
					return l, nil
				}
				readSize := int64(-1)
				_, err := readStable(context.Background(), listFiles, func(l listing) (Set, error) {
					readSize = l.files[0].size
					return nil, nil
				})
				elapsed := time.Since(start)
				// readStable lists the files only at intervals, so it can read the file a
				// little later than readAt.
				if err != nil || readSize != c.sizeAfter || elapsed < c.readAt || elapsed > c.readAt+2*StablePeriod {
					t.Errorf("readStable read %d bytes after %v, error %v; want %d bytes after %v", readSize, elapsed, err, c.sizeAfter, c.readAt)
				}
			})
		})
	}
}

// TestReadStableGivesUpOnChangingStore checks that readStable returns ErrUnstable soon
// after maxUnstablePeriod if the files of the store never stop changing.
func TestReadStableGivesUpOnChangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		listFiles := func() (listing, error) {
			var l listing
			l.add(listedFile{"A", 5, time.Now().String()}, time.Now())
			return l, nil
		}
		_, err := readStable(context.Background(), listFiles, func(listing) (Set, error) { return nil, nil })
		if elapsed := time.Since(start); !errors.Is(err, ErrUnstable) || elapsed < maxUnstablePeriod || elapsed > maxUnstablePeriod+3*StablePeriod {
			t.Errorf("readStable returned %v after %v; want ErrUnstable soon after %v", err, elapsed, maxUnstablePeriod)
		}
	})
}
