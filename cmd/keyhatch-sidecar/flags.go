package main

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/spf13/cobra"
)

// addDirFlag adds the flag --store to a command that edits a directory. It returns a
// function that returns the value of the flag. The flag must be parsed before.
func addDirFlag(c *cobra.Command) func() (store.Dir, error) {
	storeArg := c.Flags().String("store", "", "directory `STORE`, in the form dir:PATH (required)")
	return func() (store.Dir, error) {
		if *storeArg == "" {
			return store.Dir{}, cli.UsageErrorf("missing flag: --store dir:PATH")
		}
		path, ok := strings.CutPrefix(*storeArg, "dir:")
		if !ok || path == "" {
			return store.Dir{}, cli.UsageErrorf("--store must be dir:PATH, because this command only edits directories")
		}
		path, err := filepath.Abs(path)
		return store.Dir{Path: path}, err
	}
}

// addStoreFlags adds the flags that select and configure stores. It returns a function
// that returns the stores. The flags must be parsed before.
func addStoreFlags(c *cobra.Command) func() (store.Store, error) {
	flags := c.Flags()
	storeArgs := flags.StringArray("store", nil, "`STORE` to read: dir:PATH, file:PATH, or exec:COMMAND; repeat the flag to merge stores (required)")
	format := flags.String("format", "", "`FORMAT` of commands, and of files without a known extension: dotenv, yaml, or json")
	watchArgs := flags.StringArray("watch", nil, "file or directory `PATH`: when it changes, the command of an exec: store runs again; repeat the flag for several paths")
	timeout := flags.Duration("timeout", 30*time.Second, "maximum time for the command of an exec: store")
	keepNewline := flags.Bool("keep-newline", false, "keep the newline at the end of a file in a dir: store")
	return func() (store.Store, error) {
		var watchPaths []string
		for _, path := range *watchArgs {
			path, err := filepath.Abs(path)
			if err != nil {
				return nil, err
			}
			watchPaths = append(watchPaths, path)
		}
		switch *format {
		case "", string(store.Dotenv), string(store.YAML), string(store.JSON):
		default:
			return nil, cli.UsageErrorf("--format must be dotenv, yaml, or json")
		}
		if *timeout <= 0 {
			return nil, cli.UsageErrorf("--timeout must be greater than 0")
		}
		var stores store.Merged
		for _, arg := range *storeArgs {
			kind, location, _ := strings.Cut(arg, ":")
			if location == "" || (kind != "dir" && kind != "file" && kind != "exec") {
				return nil, cli.UsageErrorf("--store must be dir:PATH, file:PATH, or exec:COMMAND")
			}
			if kind == "exec" {
				if *format == "" {
					return nil, cli.UsageErrorf("--store exec:COMMAND requires --format dotenv, yaml, or json")
				}
				stores = append(stores, store.Exec{Command: location, Format: store.Format(*format), WatchPaths: watchPaths, Timeout: *timeout})
				continue
			}
			path, err := filepath.Abs(location)
			if err != nil {
				return nil, err
			}
			if kind == "dir" {
				stores = append(stores, store.Dir{Path: path, KeepNewline: *keepNewline})
				continue
			}
			fileFormat := store.Format(*format)
			if byName := store.FormatOf(path); byName != "" {
				fileFormat = byName
			}
			if fileFormat == "" {
				return nil, cli.UsageErrorf("cannot determine the format of %s from its name: add --format dotenv, yaml, or json", location)
			}
			stores = append(stores, store.File{Path: path, Format: fileFormat})
		}
		if len(stores) == 0 {
			return nil, cli.UsageErrorf("missing flag: --store dir:PATH, file:PATH, or exec:COMMAND")
		}
		return stores, nil
	}
}

// addSocketFlag adds the flag --socket. It returns a function that returns the path of
// the admin socket. The flag must be parsed before.
func addSocketFlag(c *cobra.Command) func() (string, error) {
	socketArg := c.Flags().String("socket", "", "`PATH` of the admin socket (default: /run/keyhatch/admin/admin.sock for root, otherwise $XDG_RUNTIME_DIR/keyhatch/admin/admin.sock)")
	return func() (string, error) {
		if *socketArg != "" {
			return *socketArg, nil
		}
		if path := cli.DefaultAdminSocket(); path != "" {
			return path, nil
		}
		return "", cli.UsageErrorf("cannot find the admin socket: set --socket or XDG_RUNTIME_DIR")
	}
}
