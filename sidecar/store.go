package sidecar

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyhatch/keyhatch/schema"
)

// A Store is what a sidecar reads: a Dir, a File, an Exec, or several of them
// Merged.
type Store interface {
	// Read returns the whole set as it was at one moment. Errors name the file,
	// the line where there is one, and the rule; they hold nothing of a secret.
	Read(ctx context.Context) (schema.PushRequest, error)
	// Watch returns the directories whose events can mean a change.
	Watch() []string
	// Concerns reports whether an event at path, which is in one of them, can
	// mean a change.
	Concerns(path string) bool
}

func newSet() schema.PushRequest {
	return schema.PushRequest{Secrets: map[schema.SecretName]schema.Value{}, SecretsB64: map[schema.SecretName][]byte{}}
}

func count(set schema.PushRequest) int { return len(set.Secrets) + len(set.SecretsB64) }

// Merged is the union of stores. A name that two of them have is an error,
// because which one counts would be a guess.
type Merged []Store

// Read reads all the stores.
func (m Merged) Read(ctx context.Context) (schema.PushRequest, error) {
	all := newSet()
	for _, store := range m {
		set, err := store.Read(ctx)
		if err != nil {
			return schema.PushRequest{}, err
		}
		for name, value := range set.Secrets {
			if holds(all, name) {
				return schema.PushRequest{}, twice(name)
			}
			all.Secrets[name] = value
		}
		for name, value := range set.SecretsB64 {
			if holds(all, name) {
				return schema.PushRequest{}, twice(name)
			}
			all.SecretsB64[name] = value
		}
	}
	return all, nil
}

func holds(set schema.PushRequest, name schema.SecretName) bool {
	_, text := set.Secrets[name]
	_, binary := set.SecretsB64[name]
	return text || binary
}

func twice(name schema.SecretName) error {
	return fmt.Errorf("%s is in two stores: remove it from one", name)
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

// A store on a file system is read when it has stood still for still, and for
// emptyStill where a file in it is empty: that is how most writers begin, and on
// a busy disk the kernel alone may part a truncate from its write for longer
// than still. A store that never does for longest is bad.
const (
	still      = 100 * time.Millisecond
	emptyStill = time.Second
	longest    = 2 * time.Second
)

// errMoved says that a file went away or changed while it was read.
var errMoved = errors.New("it changes while it is read")

// steady reads files that stand still. scan lists them, read reads what is
// listed: a writer that has truncated a file and not yet written it, or is at
// the second of two files, must not be overheard. A listing that by its own times
// has stood still for long enough is good at once; else, and where those times
// are of a clock that disagrees, it is looked at again.
func steady(ctx context.Context, scan func() (listing, error), read func(listing) (schema.PushRequest, error)) (schema.PushRequest, error) {
	until := time.Now().Add(longest)
	for {
		set, err := once(ctx, scan, read)
		if !errors.Is(err, errMoved) || time.Now().After(until) {
			return set, err
		}
		if err := pause(ctx, still/10); err != nil {
			return schema.PushRequest{}, err
		}
	}
}

func once(ctx context.Context, scan func() (listing, error), read func(listing) (schema.PushRequest, error)) (schema.PushRequest, error) {
	before, err := scan()
	if err != nil {
		return schema.PushRequest{}, err
	}
	until := time.Now().Add(before.wait())
	for left := time.Until(until); left > 0; left = time.Until(until) {
		if err := pause(ctx, min(left, still)); err != nil {
			return schema.PushRequest{}, err
		}
		// Looked at now and then, so that what is written meanwhile is not waited for.
		if now, err := scan(); err != nil {
			return schema.PushRequest{}, err
		} else if !now.same(before) {
			return schema.PushRequest{}, errMoved
		}
	}
	set, readErr := read(before)
	after, err := scan()
	if err != nil {
		return schema.PushRequest{}, err
	}
	if !before.same(after) {
		return schema.PushRequest{}, errMoved
	}
	return set, readErr
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
