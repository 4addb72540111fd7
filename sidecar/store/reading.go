package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyhatch/keyhatch/schema"
	"golang.org/x/sys/unix"
)

// A Reading is the result of reading a store. Pass it to the next call of Read. If a file is
// then not complete, Read uses the old value of its secret.
type Reading struct {
	Set Set
	State
}

// A State is the part of a Reading that contains no value of a secret.
type State struct {
	// Unfinished contains the paths of the files that are not complete. The Set contains the
	// old values of their secrets. If there is no old value, the Set does not contain the
	// secret.
	Unfinished map[string]Reason

	files map[string]fileState // by path
	dirs  map[string]dirState  // by the path of a Dir
}

// ErrReplaced is the error that Read returns if a directory with files was replaced by an empty
// directory. The usual reason is that a file system was unmounted. If all files of the same
// directory are removed, Read returns no error.
var ErrReplaced = errors.New("the directory is empty, and it is not the directory that was read before")

// A dirState is the state of the directory of a Dir at the time of a read.
type dirState struct {
	ID       string `json:"id"` // identifies the directory and its file system
	HasFiles bool   `json:"has_files"`
}

// A Reason is the reason why a file is not complete.
type Reason string

// The reasons why a file is not complete. An empty file stays unfinished until it changes. In
// all other cases, no file event may arrive when the file becomes complete.
const (
	// ReasonEmpty is necessary because many programs truncate a file before they write the
	// file, and because a program can fail after it has truncated the file.
	ReasonEmpty   Reason = "the file is empty"
	reasonOpen    Reason = "a process has the file open for writing"
	reasonChanged Reason = "the file has just changed, and its file system does not report whether a process has the file open for writing"
	reasonShorter Reason = "the file has just become shorter"
)

// An unfinishedError is the error for a file that is not complete if there is no old value.
type unfinishedError struct {
	path   string
	reason Reason
}

func (e *unfinishedError) Error() string { return fmt.Sprintf("%s: %s", e.path, e.reason) }

func (e *unfinishedError) Unwrap() error { return ErrUnstable }

// unleasedPeriod is how long a file must be unchanged if the kernel does not report whether a
// process has the file open for writing.
const unleasedPeriod = 300 * time.Millisecond

// shorterPeriod is how long a file that became shorter must be unchanged. A program can close a
// file after the first part of a value, and open the file again to write the rest.
const shorterPeriod = time.Second

// A fileState contains the results of the last reads of a file.
type fileState struct {
	Version fileVersion `json:"version"`
	SeenAt  int64       `json:"seen_at"` // when a read found this version for the first time; see monotonicNow
	// LastUsed is the version at the time of the last read that used the file. Its fingerprint
	// is empty if no read has used the file.
	LastUsed fileVersion         `json:"last_used"`
	Names    []schema.SecretName `json:"names"` // the secrets that the last used file contained
}

func newState() State {
	return State{Unfinished: map[string]Reason{}, files: map[string]fileState{}, dirs: map[string]dirState{}}
}

func newReading() *Reading { return &Reading{Set: Set{}, State: newState()} }

// monotonicNow returns the time in nanoseconds since the boot of the machine. Unlike the times
// of package time, another process can use this time even after somebody has set the clock.
func monotonicNow() int64 {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail with these arguments
	return now.Nano()
}

// readFile reads a file of the store. If the file is not complete, readFile adds the file to
// r.Unfinished and returns a reason.
func (r *Reading) readFile(f listedFile, previous *Reading) (content []byte, reason Reason, err error) {
	state := previous.files[f.path]
	if state.Version != f.fileVersion {
		state.Version, state.SeenAt = f.fileVersion, monotonicNow()
	}
	content, writers, err := readFile(f)
	if err != nil {
		return nil, "", err
	}
	unchangedFor, last := time.Duration(monotonicNow()-state.SeenAt), state.LastUsed
	switch {
	case f.fileVersion == last && content != nil:
		// An earlier read has used the file, and the file has not changed.
	case writers == writersExist:
		reason = reasonOpen
	case f.Size == 0:
		reason = ReasonEmpty
	case writers == writersUnknown && unchangedFor < unleasedPeriod:
		reason = reasonChanged
	case f.Inode == last.Inode && f.Size < last.Size && unchangedFor < shorterPeriod:
		reason = reasonShorter
	}
	if reason == "" {
		state.LastUsed = f.fileVersion
	} else {
		r.Unfinished[f.path] = reason
	}
	r.files[f.path] = state
	return content, reason, nil
}

// withTimesOf returns a copy of r that also knows when next found each file for the first
// time. The copy does not contain any other result of next, because readStable may discard
// next.
func (r *Reading) withTimesOf(next *Reading) *Reading {
	files := map[string]fileState{}
	for path, state := range next.files {
		state.LastUsed, state.Names = r.files[path].LastUsed, r.files[path].Names
		files[path] = state
	}
	return &Reading{r.Set, State{files: files, dirs: r.dirs}}
}

// keepOld copies the old value of a secret from previous to r. If there is no old value,
// keepOld removes the secret from r.
func (r *Reading) keepOld(name schema.SecretName, previous *Reading) {
	if value, exists := previous.Set[name]; exists {
		r.Set[name] = value
	} else {
		delete(r.Set, name)
	}
}

// WaitsForFile reports whether a file of the store can become complete without a file event.
func (s State) WaitsForFile() bool {
	for _, reason := range s.Unfinished {
		if reason != ReasonEmpty {
			return true
		}
	}
	return false
}
