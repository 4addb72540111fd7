package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestReadStableWaitsForChanges checks that readStable waits until the files have not changed
// for stablePeriod. The test uses a fake clock. The file is written at the start of the test and
// again at writtenAt. clockSkew is how far the clock of the file system is ahead of the local
// clock.
func TestReadStableWaitsForChanges(t *testing.T) {
	const never = time.Hour
	for _, c := range []struct {
		name                 string
		writtenAt, clockSkew time.Duration
		reason               Reason // why the file is not complete
		want                 string
		readAt               time.Duration // the earliest time at which readStable may return
	}{
		{"an old file", -time.Minute, 0, "", "second", 0},
		{"a new file", never, 0, "", "first", stablePeriod},
		{"a file that changes again soon", stablePeriod / 2, 0, "", "second", stablePeriod/2 + stablePeriod},
		{"a fast file system clock", never, time.Hour, "", "first", stablePeriod},
		{"a slow file system clock", never, -time.Hour, "", "first", 0},
		{"a new file that is not complete", never, 0, ReasonEmpty, "first", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				listFiles := func() (listing, error) {
					f := listedFile{path: "A", fileVersion: fileVersion{Fingerprint: "first"}, changedAt: start.Add(c.clockSkew)}
					if time.Since(start) >= c.writtenAt {
						f.Fingerprint, f.changedAt = "second", start.Add(c.writtenAt+c.clockSkew)
					}
					return listing{files: []listedFile{f}}, nil
				}
				r, err := readStable(context.Background(), &Reading{Set: Set{}}, listFiles, func(l listing, _ *Reading) (*Reading, error) {
					r := newReading()
					r.Set["A"] = Value{Bytes: []byte(l.files[0].Fingerprint)}
					if c.reason != "" {
						r.Unusable["A"] = c.reason
					}
					return r, nil
				})
				elapsed := time.Since(start)
				// readStable lists the files only at intervals, so it can return a little later
				// than readAt.
				if err != nil || string(r.Set["A"].Bytes) != c.want || elapsed < c.readAt || elapsed > c.readAt+2*stablePeriod {
					t.Errorf("readStable returned %v after %v, error %v; want %q after %v", r, elapsed, err, c.want, c.readAt)
				}
			})
		})
	}
}

// TestReadStableWaitsForMissingFile removes a file and soon creates it again, as some editors
// do. It checks that readStable does not return a set without this file.
func TestReadStableWaitsForMissingFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		createdAt := start.Add(stablePeriod / 2)
		listFiles := func() (listing, error) {
			if time.Now().Before(createdAt) {
				return listing{dirChangedAt: start}, nil
			}
			return listing{dirChangedAt: createdAt, files: []listedFile{{path: "A", changedAt: createdAt}}}, nil
		}
		count := 0
		_, err := readStable(context.Background(), &Reading{Set: Set{}}, listFiles, func(l listing, _ *Reading) (*Reading, error) {
			count = len(l.files)
			return newReading(), nil
		})
		if err != nil || count != 1 {
			t.Errorf("readStable returned a set of %d files, error %v", count, err)
		}
	})
}

// TestReadStableGivesUpOnChangingStore checks that readStable returns ErrUnstable soon
// after maxUnstablePeriod if the files of the store never stop changing.
func TestReadStableGivesUpOnChangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		listFiles := func() (listing, error) {
			return listing{files: []listedFile{{path: "A", fileVersion: fileVersion{Fingerprint: time.Now().String()}, changedAt: time.Now()}}}, nil
		}
		_, err := readStable(context.Background(), nil, listFiles, func(listing, *Reading) (*Reading, error) { return newReading(), nil })
		if elapsed := time.Since(start); !errors.Is(err, ErrUnstable) || elapsed < maxUnstablePeriod || elapsed > maxUnstablePeriod+3*stablePeriod {
			t.Errorf("readStable returned %v after %v; want ErrUnstable soon after %v", err, elapsed, maxUnstablePeriod)
		}
	})
}
