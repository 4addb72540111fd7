package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// readFile reads a file, and reports whether a process has the file open for writing. If the
// file has changed since the listing, there are two cases. If a process has the file open for
// writing, content is nil. Otherwise readFile returns an error that wraps ErrUnstable.
func readFile(listed listedFile) (content []byte, writers writerState, err error) {
	// Use O_NONBLOCK, because a FIFO may have replaced the file since the listing.
	// Without O_NONBLOCK, opening a FIFO would block.
	f, err := os.OpenFile(listed.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.EAGAIN) { // a process has a write lease for the file
		return nil, writersExist, nil
	}
	if err != nil {
		return nil, 0, asUnstable(describePathError(err))
	}
	defer f.Close()
	writers = leaseFile(f)
	opened, err := versionOf(f, listed)
	if err != nil {
		return nil, 0, err
	}
	isSame := opened == listed.fileVersion
	if isSame {
		content, err = io.ReadAll(io.LimitReader(f, listed.Size+1))
		if err != nil {
			return nil, 0, asUnstable(describePathError(err))
		}
		isSame = int64(len(content)) == listed.Size
		if after, err := versionOf(f, listed); err == nil && after == opened && !isSame && writers != writersExist {
			return nil, 0, &unusableError{listed.path, reasonWrongSize}
		}
	}
	switch {
	case isSame:
		return content, writers, nil
	case writers == writersExist:
		return nil, writers, nil
	}
	return nil, 0, fmt.Errorf("%s: %w", listed.path, ErrUnstable)
}

// versionOf returns the version of the open file f, which was listed before.
func versionOf(f *os.File, listed listedFile) (fileVersion, error) {
	info, err := f.Stat()
	if err != nil {
		return fileVersion{}, describePathError(err)
	}
	current, err := newListedFile(listed.name, listed.path, info)
	return current.fileVersion, err
}

// asUnstable wraps err together with ErrUnstable if err means that a file no longer
// exists. It returns all other errors unchanged.
func asUnstable(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, ErrUnstable)
	}
	return err
}
