// Package store reads stores of secrets: directories, files, and the output of
// commands. It also edits directories. It knows no broker: it returns a Set, and
// its caller decides what to do with the Set.
//
// A store is not trusted to be complete. A file that changes while it is read is
// read again, and a store that cannot be read completely is an error, never a
// smaller Set. Errors name files, lines and rules, and contain nothing of a
// secret.
package store

import "context"

// A Store is what a sidecar reads: a Dir, a File, an Exec, or several of them
// Merged.
type Store interface {
	// Read returns the whole set as it was at one moment. Errors name the file,
	// the line where there is one, and the rule; they hold nothing of a secret.
	Read(ctx context.Context) (Set, error)
	// WatchDirs returns the directories whose events can mean a change.
	WatchDirs() []string
	// IsAffectedBy reports whether an event at path, which is in one of them, can
	// mean a change.
	IsAffectedBy(path string) bool
}
