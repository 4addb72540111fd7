package store

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
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
	// Unusable contains the problems that do not prevent a read. If a problem affects a secret, the Set
	// contains the old value of the secret, or no value if there is no old value. The key is the path
	// of a file that Read could not use, or whose name cannot be the name of a secret. For a store of a
	// Merged that Read could not read, the key is "store N". For a name in two stores, it is "store M,
	// store N: NAME". For an empty value of a File or an Exec, it is "PATH: NAME" or "exec: NAME", or,
	// for a new name in dotenv, "PATH: line N".
	Unusable map[string]Reason
	// PEMProblems contains the PEM texts that programs probably cannot use. Read has used these texts. The
	// key is the path of a file of a Dir, or, for the other stores, "PATH: NAME" or "exec: NAME".
	PEMProblems map[string]PEMProblem

	files map[string]fileState // by path
	// dirs contains the state of each Dir, by path, and of each bundle in a Dir, by bundleKey. It also
	// contains the names of the secrets in each store of a Merged, by partName.
	dirs map[string]dirState
}

// A dirState is the state of a directory at the time of a read. For a store of a Merged, it contains
// only Names.
type dirState struct {
	ID    string              `json:"id"`    // identifies the directory and its file system
	Names []schema.SecretName `json:"names"` // empty for a bundle, because the Set contains its fields
}

// If the kernel does not report whether a process has a file open for writing, Read uses the file only
// after it has not changed for unleasedPeriod.
const unleasedPeriod = 300 * time.Millisecond

// If a file became shorter, Read uses the file only after it has not changed for shorterPeriod. A
// program can close a file after the first part of a value, and open it again to write the rest.
const shorterPeriod = time.Second

// A fileState contains the results of the last reads of a file.
type fileState struct {
	Version fileVersion `json:"version"`
	SeenAt  int64       `json:"seen_at"` // when a read found this version for the first time; see monotonicNow
	// LastUsed is the last version of the file that a read has used. Its fingerprint is empty if no
	// read has used the file.
	LastUsed fileVersion         `json:"last_used"`
	Names    []schema.SecretName `json:"names"` // the names of the secrets in the version LastUsed; only for a File
}

func newState() State {
	return State{Unusable: map[string]Reason{}, PEMProblems: map[string]PEMProblem{}, files: map[string]fileState{}, dirs: map[string]dirState{}}
}

func newReading() *Reading { return &Reading{Set: Set{}, State: newState()} }

// monotonicNow returns the time in nanoseconds since the boot of the machine, without the time
// in which the machine was suspended. Unlike a time of package time, this number can be compared
// with a number from another process, even if somebody has set the clock in the meantime.
func monotonicNow() int64 {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail with these arguments
	return now.Nano()
}

// readFile reads a file of the store. If the file is not complete, readFile adds the file to
// r.Unusable and returns a reason.
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
		reason = ReasonOpen
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
		r.Unusable[f.path] = reason
	}
	r.files[f.path] = state
	return content, reason, nil
}

// withTimesOf returns a copy of r with the times in next at which reads found the current versions of
// the files. readStable can then discard all other results of the Reading next.
func (r *Reading) withTimesOf(next *Reading) *Reading {
	files := map[string]fileState{}
	for path, state := range next.files {
		state.LastUsed, state.Names = r.files[path].LastUsed, r.files[path].Names
		files[path] = state
	}
	return &Reading{r.Set, State{Unusable: r.Unusable, PEMProblems: r.PEMProblems, files: files, dirs: r.dirs}}
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

// keepOldOfEmpty replaces empty values in r by the old values of their secrets, because an empty value
// usually comes from an edit or a command that has failed. It removes a secret without an old value
// from r. A bundle without fields is an empty value. keepOldOfEmpty adds the name of each empty value
// to r.Unusable. For a new name in lines, keepOldOfEmpty adds the number of the line instead of the name,
// because the name can be a part of a value that was divided into several lines.
func (r *Reading) keepOldOfEmpty(source string, previous *Reading, lines map[schema.SecretName]int) {
	for name, value := range r.Set {
		var empty []string
		if len(value.Fields) == 0 && len(value.Bytes) == 0 {
			empty = append(empty, string(name))
		}
		for field, text := range value.Fields {
			if len(text) == 0 {
				empty = append(empty, string(name+"/"+field))
			}
		}
		for _, path := range empty { // NAME, or BUNDLE/FIELD
			_, isOld := previous.Set[name]
			if line, exists := lines[name]; exists && !isOld {
				path = fmt.Sprint("line ", line)
			}
			r.Unusable[source+": "+path] = ReasonEmptyValue
			r.keepOld(name, previous)
		}
	}
}

// checkPEM adds the PEM texts of a File or of an Exec that programs probably cannot use to r.PEMProblems.
// A PEM text without line breaks usually comes from a YAML file, because YAML replaces the line breaks of
// a value by spaces, unless a | precedes the value. Some programs accept \n instead of a line break.
func (r *Reading) checkPEM(source string) {
	check := func(name string, text []byte) {
		problem := CheckPEM(text)
		if problem == PEMTruncated || problem == PEMOneLine && !bytes.Contains(text, []byte(`\n`)) {
			r.PEMProblems[source+": "+name] = problem
		}
	}
	for name, value := range r.Set {
		check(string(name), value.Bytes)
		for field, text := range value.Fields {
			check(string(name+"/"+field), text)
		}
	}
}

// HasReplaced reports whether a store of a Merged was replaced and secrets are missing in it, or
// whether the directory of a bundle was replaced and fields are missing in it.
func (s State) HasReplaced() bool {
	for _, reason := range s.Unusable {
		if reason.IsReplaced() {
			return true
		}
	}
	return false
}

// AcceptReplaced returns a copy of s that makes the next Read accept a replaced directory in which
// secrets or fields are missing. If all is false, the copy does so only for the stores and the bundles
// that HasReplaced has found.
func (s State) AcceptReplaced(all bool) State {
	isReplaced := func(path string) bool {
		if s.Unusable[path] == reasonReplacedBundle {
			return true
		}
		for _, reason := range s.Unusable {
			if string(reason) == storeFailed+replacedError(path).Error() {
				return true
			}
		}
		return false
	}
	dirs := maps.Clone(s.dirs)
	maps.DeleteFunc(dirs, func(key string, _ dirState) bool {
		path := strings.TrimSuffix(key, "/")
		// If a store was replaced, all of its bundles were replaced, too.
		return filepath.IsAbs(path) && (all || isReplaced(path) || isReplaced(filepath.Dir(path)))
	})
	s.dirs = dirs
	return s
}

// replacedError returns ErrReplaced with the path of a directory.
func replacedError(path string) error { return fmt.Errorf("%s: %w", path, ErrReplaced) }

// IsFileStore reports whether the file at path is the file of a File from which an earlier read has
// used at least one secret.
func (s State) IsFileStore(path string) bool { return len(s.files[path].Names) > 0 }

// WaitsForFile reports whether a problem in Unusable can end without a file event, for example because
// a program closes a file.
func (s State) WaitsForFile() bool {
	for _, reason := range s.Unusable {
		if reason.IsTemporary() {
			return true
		}
	}
	return false
}
