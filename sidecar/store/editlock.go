package store

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lock waits for other edits of the store. It then removes the leftovers of killed edits from
// the store's directory and from all bundles, but not from a bundle that is a symbolic link.
// Some network file systems cannot lock a directory. There, leftovers stay, because they can
// belong to an edit that is still running.
// lock returns the open directory of the store. Closing this directory unlocks the store.
func (d Dir) lock(ctx context.Context) (editDir, error) {
	root, err := openEditDir(d.Path, 0)
	if err != nil {
		return editDir{}, err
	}
	locked, err := d.waitForLock(ctx, root.File)
	if err != nil {
		root.Close()
		return editDir{}, err
	}
	if locked {
		for _, name := range d.tempNames() {
			root.removeLeftover(name)
		}
	}
	return root, nil
}

// lockRetryDelay is the delay between two attempts to lock the store. An attempt that waits in the
// kernel could not be canceled.
const lockRetryDelay = 20 * time.Millisecond

// waitForLock locks the open directory of the store. locked is false if the file system has no
// locks.
func (d Dir) waitForLock(ctx context.Context, dir *os.File) (locked bool, err error) {
	reportAt := time.Now().Add(time.Second)
	onWait := d.OnWait
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return err == nil, nil
		}
		if onWait != nil && time.Now().After(reportAt) {
			onWait()
			onWait = nil
		}
		if err := sleep(ctx, lockRetryDelay); err != nil {
			return false, err
		}
	}
}
