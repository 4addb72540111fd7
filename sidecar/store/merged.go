package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// Merged is a store that combines several stores. If two of these stores contain the same
// name, Read returns an error, because all stores have the same priority.
type Merged []Store

// Read reads all stores and returns one set with the secrets of all stores.
func (m Merged) Read(ctx context.Context, previous *Reading) (*Reading, error) {
	all := newReading()
	for _, store := range m {
		r, err := store.Read(ctx, previous)
		if err != nil {
			return nil, err
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
	}
	return all, nil
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
