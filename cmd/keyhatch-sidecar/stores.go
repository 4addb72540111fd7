package main

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/sidecar/store"
)

// A storeKind is a kind of store that --store can select, as NAME:ARGUMENT.
type storeKind struct {
	name, argument string
	open           func(location string, options storeOptions) (store.Store, error)
}

// storeKinds lists all kinds. The help and the errors of --store are made from it.
var storeKinds = []storeKind{
	{"dir", "PATH", openDir},
	{"file", "PATH", openFile},
	{"exec", "COMMAND", openExec},
}

// storeOptions are the other flags that configure stores.
type storeOptions struct {
	format      store.Format  // "" if --format is not set
	watchPaths  []string      // for exec
	timeout     time.Duration // for exec
	keepNewline bool          // for dir
}

// storeForms lists the forms of --store, for example "dir:PATH, or exec:COMMAND".
func storeForms() string {
	var forms []string
	for _, kind := range storeKinds {
		forms = append(forms, kind.name+":"+kind.argument)
	}
	last := len(forms) - 1
	return strings.Join(forms[:last], ", ") + ", or " + forms[last]
}

// openStore returns the store that an argument of --store selects.
func openStore(arg string, options storeOptions) (store.Store, error) {
	name, location, _ := strings.Cut(arg, ":")
	for _, kind := range storeKinds {
		if kind.name == name && location != "" {
			return kind.open(location, options)
		}
	}
	return nil, cli.UsageErrorf("--store must be %s", storeForms())
}

func openDir(location string, options storeOptions) (store.Store, error) {
	path, err := filepath.Abs(location)
	return store.Dir{Path: path, KeepNewline: options.keepNewline}, err
}

func openFile(location string, options storeOptions) (store.Store, error) {
	path, err := filepath.Abs(location)
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
