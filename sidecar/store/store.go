// Package store reads stores of secrets: directories, files, and the output of
// commands. It also edits directories. It does not connect to the broker: it returns
// a Set, and the caller pushes the Set.
//
// The package does not assume that a store is complete. If a file changes during the
// read, the file is read again. If a store cannot be read completely, the result is
// an error, never a smaller Set. Errors name files, lines, and rules, and never
// contain any part of a secret.
package store

import "context"

// A Store is a source of secrets: a Dir, a File, an Exec, or a Merged store of
// several.
type Store interface {
	// Read returns the complete set of secrets as it was at one moment. An error names
	// the file, the line if the file has lines, and the rule that it breaks. It never contains any part
	// of a secret.
	Read(ctx context.Context) (Set, error)
	// WatchDirs returns the directories in which an event can mean a change of the
	// store.
	WatchDirs() []string
	// IsAffectedBy reports whether an event at path can mean a change of the store.
	// The path is in one of the directories that WatchDirs returned.
	IsAffectedBy(path string) bool
}
