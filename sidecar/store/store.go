// Package store reads secrets from stores. A store is a directory, a file, or the output of a
// command. The package can also edit a directory. It does not connect to the broker. It
// returns a LockedSet, which the sidecar pushes to the broker.
//
// Parsers leave copies of secrets in memory. So a ChildReader reads a store in a child process.
// The sidecar receives the values of the secrets only as a complete push request, in locked
// memory. If a file is not complete, the child process uses the old value of its secret. So
// the sidecar sends the previous push request to the child process.
//
// The package does not assume that a store is complete. If a file changes during a read, the
// package reads the store again. If the package cannot use a file of a directory, for example
// because the file is empty, open for writing, or unreadable, it uses the old value of the file's
// secret. Such problems are in State.Unusable. If the package cannot read a store at all, it returns an
// error, or, for one of the stores of a Merged, an entry in State.Unusable. An error contains the path of
// the file, the line, and the violated rule, if they are known. An error can contain the name of a
// secret, but never a part of a value.
package store

import "context"

// A Store is a source of secrets. The types Dir, File, Exec, and Merged are stores.
type Store interface {
	// Read returns the complete set of secrets that the store contained at one moment. If
	// Read cannot use a file, it uses the old value of the file's secret. previous is the result of
	// the last call that returned no error, or nil if there was none.
	//
	// An error contains the path of the file, the line, and the violated rule, if they are
	// known. The error never contains a part of the value of a secret.
	Read(ctx context.Context, previous *Reading) (*Reading, error)
	// WatchDirs returns the directories that the sidecar must watch for file events. An event
	// in one of these directories can mean that the store changed.
	WatchDirs() []string
	// IsAffectedBy reports whether a file event at path can mean that the store changed.
	// The path is in one of the directories that WatchDirs returned.
	IsAffectedBy(path string) bool
}
