package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestSteady reads what stands still, in time of its own: a file that is
// truncated at 0 and written at written. skew is how far the file system's clock
// is ahead.
func TestSteady(t *testing.T) {
	const never = time.Hour
	for _, c := range []struct {
		name          string
		written, skew time.Duration
		before, size  int64         // of the file until it is written, and then
		at            time.Duration // when it is read for good
	}{
		{"an old file", -time.Minute, 0, 0, 5, 0},
		{"a new file", 0, 0, 0, 5, StablePeriod},
		{"emptied, and written late", emptyStill / 2, 0, 0, 5, emptyStill/2 + StablePeriod},
		{"emptied, and left so", never, 0, 0, 0, emptyStill},
		{"cut short, and written soon", StablePeriod / 2, 0, 2, 5, StablePeriod/2 + StablePeriod},
		{"a clock ahead", 0, time.Hour, 0, 5, StablePeriod},
		{"a clock ahead, and a file left empty", never, time.Hour, 0, 0, emptyStill},
		{"a clock behind", 0, -time.Hour, 0, 5, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				scan := func() (listing, error) {
					f, changed := file{"A", c.before, "cut"}, began
					if time.Since(began) >= c.written {
						f, changed = file{"A", c.size, "written"}, began.Add(c.written)
					}
					var l listing
					l.note(f, changed.Add(c.skew))
					return l, nil
				}
				read := int64(-1)
				_, err := steady(context.Background(), scan, func(l listing) (Set, error) {
					read = l.files[0].size
					return nil, nil
				})
				took := time.Since(began)
				// It looks again once in a while, and a little later than it could.
				if err != nil || read != c.size || took < c.at || took > c.at+2*StablePeriod {
					t.Errorf("%d bytes after %v: %v; want %d after %v", read, took, err, c.size, c.at)
				}
			})
		})
	}
}

// TestNeverSteady gives up on a store that moves all the time, and says why.
func TestNeverSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		scan := func() (listing, error) {
			var l listing
			l.note(file{"A", 5, time.Now().String()}, time.Now())
			return l, nil
		}
		_, err := steady(context.Background(), scan, func(listing) (Set, error) { return nil, nil })
		if took := time.Since(began); !errors.Is(err, ErrUnstable) || took < longest || took > longest+3*StablePeriod {
			t.Errorf("after %v: %v", took, err)
		}
	})
}
