package main

import (
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// A storeKind is a kind of store. The user selects the store with --store NAME:ARGUMENT.
type storeKind struct {
	name, argument string
	open           func(location string, options storeOptions) (store.Store, error)
}

// storeKinds lists all kinds of stores. The help and the error messages of the flag
// --store list these kinds.
var storeKinds = []storeKind{
	{"dir", "PATH", openDir},
	{"file", "PATH", openFile},
	{"exec", "COMMAND", openExec},
}

// storeOptions contains the values of the flags that configure stores, except --store.
type storeOptions struct {
	format      store.Format  // "" if --format is not set
	watchPaths  []string      // only for exec: stores
	timeout     time.Duration // only for exec: stores
	keepNewline bool          // only for dir: stores
}

// storeForms returns the possible values of the flag --store as a text for the user, for
// example "dir:PATH, file:PATH, or exec:COMMAND".
func storeForms() string {
	var forms []string
	for _, kind := range storeKinds {
		forms = append(forms, kind.name+":"+kind.argument)
	}
	last := len(forms) - 1
	return strings.Join(forms[:last], ", ") + ", or " + forms[last]
}

// openStore returns the store that arg selects. arg is the value of one flag --store.
func openStore(arg string, options storeOptions) (store.Store, error) {
	name, location, _ := strings.Cut(arg, ":")
	for _, kind := range storeKinds {
		if kind.name == name && location != "" {
			return kind.open(location, options)
		}
	}
	return nil, cli.UsageErrorf("--store must be %s", storeForms())
}

// storePath returns the absolute path of a store. location is the value of the flag --store
// after the kind of the store.
func storePath(kind, location string) (string, error) {
	if rest, ok := strings.CutPrefix(location, "~"); ok && (rest == "" || rest[0] == '/') {
		if rest != "" {
			rest = cli.ShellQuote(rest)
		}
		return "", &cli.Error{Err: errors.New("the shell does not expand ~ in --store"), ExitCode: cli.ExitUsage,
			Hint: "use --store " + kind + `:"$HOME"` + rest}
	}
	return filepath.Abs(location)
}

func openDir(location string, options storeOptions) (store.Store, error) {
	path, err := storePath("dir", location)
	return store.Dir{Path: path, KeepNewline: options.keepNewline}, err
}

func openFile(location string, options storeOptions) (store.Store, error) {
	path, err := storePath("file", location)
	if err != nil {
		return nil, err
	}
	format := store.FormatOf(path)
	if format == "" {
		format = options.format
	}
	if format == "" {
		return nil, cli.UsageErrorf("cannot determine the format of %s from its name: add --format dotenv, yaml, or json", location)
	}
	return store.File{Path: path, Format: format}, nil
}

func openExec(command string, options storeOptions) (store.Store, error) {
	if options.format == "" {
		return nil, cli.UsageErrorf("--store exec:COMMAND requires --format dotenv, yaml, or json")
	}
	return store.Exec{Command: command, Format: options.format, WatchPaths: options.watchPaths, Timeout: options.timeout}, nil
}
