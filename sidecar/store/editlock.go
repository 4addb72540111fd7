package store

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lock waits for other edits of the store. It then removes the leftovers of killed edits from the
// store's directory and from all bundles, but not from a bundle that is a symbolic link. On a file
// system that cannot lock a directory, lock removes no leftovers, because they can belong to an edit
// that is still running. lock returns the open directory of the store. Closing this directory unlocks
// the store.
func (d Dir) lock(ctx context.Context) (editDir, error) {
	root, err := openEditDir(d.Path, 0)
	if err != nil {
		return editDir{}, err
	}
	locked, err := d.waitForLock(ctx, root.File)
	if err == nil {
		err = d.checkNotReplaced(root)
	}
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

// checkNotReplaced returns an error if the path of the store no longer leads to its open directory,
// because a program has replaced the store while the edit waited for another edit. The sidecar would
// not read a result that the edit writes to the open directory.
func (d Dir) checkNotReplaced(root editDir) error {
	opened, err := root.Stat()
	if err != nil {
		return err
	}
	current, err := os.Stat(d.Path)
	if err != nil {
		return err
	}
	if !os.SameFile(opened, current) {
		return fmt.Errorf("the directory %s was replaced while this edit waited for another edit: nothing has changed; repeat the command", d.Path)
	}
	return nil
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
