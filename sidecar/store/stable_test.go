package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestReadStableWaitsForWriter reads what stands still, in time of its own: a file that is
// truncated at 0 and written at writtenAt. clockSkew is how far the file system's clock
// is ahead.
func TestReadStableWaitsForWriter(t *testing.T) {
	const never = time.Hour
	for _, c := range []struct {
		name                  string
		writtenAt, clockSkew  time.Duration
		sizeBefore, sizeAfter int64         // of the file until it is written, and then
		readAt                time.Duration // when it is read for good
	}{
		{"an old file", -time.Minute, 0, 0, 5, 0},
		{"a new file", 0, 0, 0, 5, StablePeriod},
		{"emptied, and written late", emptyStablePeriod / 2, 0, 0, 5, emptyStablePeriod/2 + StablePeriod},
		{"emptied, and left so", never, 0, 0, 0, emptyStablePeriod},
		{"cut short, and written soon", StablePeriod / 2, 0, 2, 5, StablePeriod/2 + StablePeriod},
		{"a clock ahead", 0, time.Hour, 0, 5, StablePeriod},
		{"a clock ahead, and a file left empty", never, time.Hour, 0, 0, emptyStablePeriod},
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
				// It looks again once in a while, and a little later than it could.
				if err != nil || readSize != c.sizeAfter || elapsed < c.readAt || elapsed > c.readAt+2*StablePeriod {
					t.Errorf("%d bytes after %v: %v; want %d after %v", readSize, elapsed, err, c.sizeAfter, c.readAt)
				}
			})
		})
	}
}

// TestReadStableGivesUpOnChangingStore gives up on a store that moves all the time, and says why.
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
