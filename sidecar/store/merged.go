package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// Merged is a store that combines several stores. A name can be in only one of these stores, because
// all stores have the same priority.
type Merged []Store

// Read reads all stores and returns one set with the secrets of all stores. If Read cannot read one of
// several stores, it uses the old secrets of this store, and adds the store to Unusable. If two stores
// contain the same name, Read uses the old value of this secret, and adds the name to Unusable. If
// there are no old secrets because previous is nil, Read returns an error instead.
func (m Merged) Read(ctx context.Context, previous *Reading) (*Reading, error) {
	all := newReading()
	stores := map[schema.SecretName]int{} // the index of the store that contains the name
	var duplicates []schema.SecretName
	for i, store := range m {
		r, err := readWithTimeout(ctx, store, previous.part(i))
		if err != nil {
			if len(m) == 1 || ctx.Err() != nil || !previous.hasPart(i) {
				return nil, err
			}
			r = previous.part(i).afterFailure(i, err)
			defer all.keepStates(previous)
		}
		for _, name := range slices.Sorted(maps.Keys(r.Set)) { // so that each read returns the same error
			if first, exists := stores[name]; exists {
				if !previous.hasPart(i) {
					return nil, fmt.Errorf("%s is in two stores: remove the secret from one of the two stores", name)
				}
				all.Unusable[partName(first)+", "+partName(i)+": "+string(name)] = ReasonDuplicate
				duplicates = append(duplicates, name)
				continue
			}
			stores[name], all.Set[name] = i, r.Set[name]
		}
		maps.Copy(all.Unusable, r.Unusable)
		maps.Copy(all.PEMProblems, r.PEMProblems)
		maps.Copy(all.files, r.files)
		maps.Copy(all.dirs, r.dirs)
	}
	// A store must not become the owner of a duplicate, because the old value is from another store.
	owners := previous.owners(len(m))
	for _, name := range duplicates {
		all.keepOld(name, previous)
		stores[name] = owners[name] // not used if there is no old value
	}
	parts := make([]dirState, len(m))
	for name := range all.Set {
		parts[stores[name]].Names = append(parts[stores[name]].Names, name)
	}
	for i, part := range parts {
		all.dirs[partName(i)] = part
	}
	return all, nil
}

// readTimeout is the maximum duration of a read of one store. For an Exec, its Timeout is added. The
// limit is necessary because a system call does not end while the server of a network file system
// does not answer.
const readTimeout = 30 * time.Second

// maxReadTime returns the maximum duration of a read of one store.
func maxReadTime(store Store) time.Duration {
	if command, ok := store.(Exec); ok {
		return readTimeout + command.Timeout
	}
	return readTimeout
}

// MaxReadTime returns the maximum duration of a read of all stores in a child process. It includes the
// time that the child process needs to start and to write its result.
func (m Merged) MaxReadTime() time.Duration {
	total := readTimeout
	for _, store := range m {
		total += maxReadTime(store)
	}
	return total
}

// readWithTimeout calls the method Read of a store. If Read does not end within maxReadTime,
// readWithTimeout returns an error, and the goroutine that calls Read continues until the process ends.
// The sidecar calls Read only in a child process, which ends soon (see ChildReader).
func readWithTimeout(ctx context.Context, store Store, previous *Reading) (*Reading, error) {
	timeout := maxReadTime(store)
	type result struct {
		reading *Reading
		err     error
	}
	results := make(chan result, 1)
	go func() {
		reading, err := store.Read(ctx, previous)
		results <- result{reading, err}
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case r := <-results:
		return r.reading, r.err
	case <-timer.C:
		return nil, fmt.Errorf("%s did not answer within %v: if the store is on a network file system, check that the server answers", describe(store), timeout)
	}
}

// describe returns the path of a store, or "the store" if the store has no path.
func describe(store Store) string {
	switch store := store.(type) {
	case Dir:
		return store.Path
	case File:
		return store.Path
	}
	return "the store"
}

// partName identifies the store with the index i of a Merged in State.dirs and in State.Unusable. It
// differs from all paths, because paths are absolute.
func partName(i int) string { return fmt.Sprint("store ", i+1) }

// hasPart reports whether r contains the secrets of the store with the index i of a Merged.
func (r *Reading) hasPart(i int) bool {
	if r == nil {
		return false
	}
	_, exists := r.dirs[partName(i)]
	return exists
}

// owners returns the index of the store of a Merged from which r contains the value of each secret. count is
// the number of stores.
func (r *Reading) owners(count int) map[schema.SecretName]int {
	owners := map[schema.SecretName]int{}
	for i := range count {
		if r.hasPart(i) {
			for _, name := range r.dirs[partName(i)].Names {
				owners[name] = i
			}
		}
	}
	return owners
}

// part returns a copy of r with only those secrets whose values are from the store with the index i of a
// Merged. Otherwise a store with an unusable entry would use the old value of another store. If r does
// not contain this store, part returns r.
func (r *Reading) part(i int) *Reading {
	if !r.hasPart(i) {
		return r
	}
	part := &Reading{Set{}, r.State}
	for _, name := range r.dirs[partName(i)].Names {
		part.keepOld(name, r)
	}
	return part
}

// afterFailure returns the secrets of r, which is the old part of the store with the index i of a Merged.
// err is the reason why this store cannot be read now.
func (r *Reading) afterFailure(i int, err error) *Reading {
	old := &Reading{r.Set, newState()}
	prefix := storeFailed
	if errors.Is(err, ErrUnstable) {
		prefix = storeUnstable
	}
	old.Unusable[partName(i)] = Reason(prefix + err.Error())
	return old
}

// keepStates copies states of files and directories from previous to r. It does not replace a state in
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
