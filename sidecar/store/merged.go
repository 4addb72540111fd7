package store

import (
	"context"
	"fmt"
)

// Merged is a store that combines several stores. If two stores contain the same name,
// Read returns an error, because neither store has priority.
type Merged []Store

// Read reads all stores and returns the union of their sets.
func (m Merged) Read(ctx context.Context) (Set, error) {
	all := Set{}
	for _, store := range m {
		set, err := store.Read(ctx)
		if err != nil {
			return nil, err
		}
		for name, value := range set {
			if _, exists := all[name]; exists {
				return nil, fmt.Errorf("%s is in two stores: remove it from one of them", name)
			}
			all[name] = value
		}
	}
	return all, nil
}

// WatchDirs returns the directories of all stores.
func (m Merged) WatchDirs() (dirs []string) {
	for _, store := range m {
		dirs = append(dirs, store.WatchDirs()...)
	}
	return dirs
}

// IsAffectedBy reports whether an event at path can mean a change of any of the stores.
func (m Merged) IsAffectedBy(path string) bool {
	for _, store := range m {
		if store.IsAffectedBy(path) {
			return true
		}
	}
	return false
}
