package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Merged is a store that combines several stores. If two of these stores contain the same
// name, Read returns an error, because all stores have the same priority.
type Merged []Store

// Read reads all stores and returns one set with the secrets of all stores. If Read cannot read one
// of several stores, it uses the old secrets of this store, and adds the store to Unusable. If there
// are no old secrets, or if Read cannot read any store, it returns an error.
func (m Merged) Read(ctx context.Context, previous *Reading) (*Reading, error) {
	all := newReading()
	var failure error // the first error
	failures := 0
	for i, store := range m {
		r, err := store.Read(ctx, previous)
		if err != nil {
			if r = previous.oldPart(i, err); r == nil || ctx.Err() != nil {
				return nil, err
			}
			failure = cmp.Or(failure, err)
			failures++
		}
		for _, name := range slices.Sorted(maps.Keys(r.Set)) { // so that each read returns the same error
			if _, exists := all.Set[name]; exists {
				return nil, fmt.Errorf("%s is in two stores: remove the secret from one of the two stores", name)
			}
			all.Set[name] = r.Set[name]
		}
		maps.Copy(all.Unusable, r.Unusable)
		maps.Copy(all.files, r.files)
		maps.Copy(all.dirs, r.dirs)
		all.dirs[partName(i)] = dirState{Names: slices.Collect(maps.Keys(r.Set))}
	}
	if failures == len(m) {
		return nil, failure
	}
	if failures > 0 {
		all.keepStates(previous)
	}
	return all, nil
}

// partName identifies the store with the index i of a Merged in State.dirs and in State.Unusable. It
// differs from all paths, because paths are absolute.
func partName(i int) string { return fmt.Sprint("store ", i+1) }

// oldPart returns the secrets that the store with the index i of a Merged contained at the time of
// r. err is the error of the current read of this store. If there are no old secrets, or if the error
// concerns all stores, oldPart returns nil.
func (r *Reading) oldPart(i int, err error) *Reading {
	if r == nil || errors.Is(err, ErrUnstable) || errors.Is(err, ErrReplaced) {
		return nil
	}
	part, exists := r.dirs[partName(i)]
	if !exists {
		return nil
	}
	old := newReading()
	for _, name := range part.Names {
		old.keepOld(name, r)
	}
	old.Unusable[partName(i)] = Reason(storeFailed + err.Error())
	return old
}

// keepStates copies the states of files and directories that r does not contain from previous to
// r.
func (r *Reading) keepStates(previous *Reading) {
	for path, state := range previous.files {
		if _, exists := r.files[path]; !exists {
			r.files[path] = state
		}
	}
	for path, state := range previous.dirs {
		if _, exists := r.dirs[path]; !exists {
			r.dirs[path] = state
		}
	}
}

// WatchDirs returns the directories that the WatchDirs methods of all stores return.
func (m Merged) WatchDirs() (dirs []string) {
	for _, store := range m {
		dirs = append(dirs, store.WatchDirs()...)
	}
	return dirs
}

// IsAffectedBy reports whether a file event at path can mean that at least one of the
// stores changed.
func (m Merged) IsAffectedBy(path string) bool {
	for _, store := range m {
		if store.IsAffectedBy(path) {
			return true
		}
	}
	return false
}
