package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestReadStableWaitsForWriter uses a fake clock and a file that is truncated at the
// start of the test and written at writtenAt. clockSkew is how far the clock of the
// file system is ahead of the local clock.
func TestReadStableWaitsForWriter(t *testing.T) {
	const never = time.Hour
	for _, c := range []struct {
		name                  string
		writtenAt, clockSkew  time.Duration
		sizeBefore, sizeAfter int64         // size of the file before and after writtenAt
		readAt                time.Duration // time of the successful read
	}{
		{"an old file", -time.Minute, 0, 0, 5, 0},
		{"a new file", 0, 0, 0, 5, StablePeriod},
		{"emptied, and written late", emptyStablePeriod / 2, 0, 0, 5, emptyStablePeriod/2 + StablePeriod},
		{"emptied, and never written", never, 0, 0, 0, emptyStablePeriod},
		{"cut short, and written soon", StablePeriod / 2, 0, 2, 5, StablePeriod/2 + StablePeriod},
		{"a clock ahead", 0, time.Hour, 0, 5, StablePeriod},
		{"a clock ahead, and a file that stays empty", never, time.Hour, 0, 0, emptyStablePeriod},
		{"a clock behind", 0, -time.Hour, 0, 5, 0},
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
				// readStable lists the files at intervals, so it can read a little later than
				// necessary.
				if err != nil || readSize != c.sizeAfter || elapsed < c.readAt || elapsed > c.readAt+2*StablePeriod {
					t.Errorf("read %d bytes after %v, error %v; want %d bytes after %v", readSize, elapsed, err, c.sizeAfter, c.readAt)
				}
			})
		})
	}
}

// TestReadStableGivesUpOnChangingStore checks that readStable returns ErrUnstable for a
// store that never stops changing.
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
			t.Errorf("after %v: %v", elapsed, err)
		}
	})
}
