package store

import (
	"context"
	"fmt"
)

// Merged is the union of stores. A name that two of them have is an error,
// because which one counts would be a guess.
type Merged []Store

// Read reads all the stores.
func (m Merged) Read(ctx context.Context) (Set, error) {
	all := Set{}
	for _, store := range m {
		set, err := store.Read(ctx)
		if err != nil {
			return nil, err
		}
		for name, value := range set {
			if _, exists := all[name]; exists {
				return nil, fmt.Errorf("%s is in two stores: remove it from one", name)
			}
			all[name] = value
		}
	}
	return all, nil
}

// WatchDirs returns the directories of all the stores.
func (m Merged) WatchDirs() (dirs []string) {
	for _, store := range m {
		dirs = append(dirs, store.WatchDirs()...)
	}
	return dirs
}

// IsAffectedBy reports whether any of the stores is concerned.
func (m Merged) IsAffectedBy(path string) bool {
	for _, store := range m {
		if store.IsAffectedBy(path) {
			return true
		}
	}
	return false
}
