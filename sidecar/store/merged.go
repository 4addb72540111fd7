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

// Watch returns the directories of all the stores.
func (m Merged) Watch() (dirs []string) {
	for _, store := range m {
		dirs = append(dirs, store.Watch()...)
	}
	return dirs
}

// Concerns reports whether any of the stores is concerned.
func (m Merged) Concerns(path string) bool {
	for _, store := range m {
		if store.Concerns(path) {
			return true
		}
	}
	return false
}
