package main

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/spf13/cobra"
)

// addDirFlag adds --store for the commands that edit a directory. It returns a
// function that reads the flag after parsing.
func addDirFlag(c *cobra.Command) func() (store.Dir, error) {
	storeArg := c.Flags().String("store", "", "the store: dir:PATH")
	return func() (store.Dir, error) {
		path, ok := strings.CutPrefix(*storeArg, "dir:")
		if !ok || path == "" {
			return store.Dir{}, cli.UsageErrorf("--store must be dir:PATH")
		}
		path, err := filepath.Abs(path)
		return store.Dir{Path: path}, err
	}
}

// addStoreFlags adds the flags that select and configure stores. It returns a
// function that reads them after parsing.
func addStoreFlags(c *cobra.Command) func() (store.Store, error) {
	flags := c.Flags()
	storeArgs := flags.StringArray("store", nil, "dir:PATH, file:PATH or exec:COMMAND; several are merged")
	format := flags.String("format", "", "dotenv, yaml or json, where a file's name does not say it, and for commands")
	watchArgs := flags.StringArray("watch", nil, "a file or directory whose change means that commands are to be run again")
	timeout := flags.Duration("timeout", 30*time.Second, "how long a command may take")
	keepNewline := flags.Bool("keep-newline", false, "take the files of directories as they are, to the last newline")
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
			return nil, cli.UsageErrorf("--format must be dotenv, yaml or json")
		}
		if *timeout <= 0 {
			return nil, cli.UsageErrorf("--timeout must be more than 0")
		}
		var stores store.Merged
		for _, arg := range *storeArgs {
			kind, location, _ := strings.Cut(arg, ":")
			if location == "" || (kind != "dir" && kind != "file" && kind != "exec") {
				return nil, cli.UsageErrorf("--store must be dir:PATH, file:PATH or exec:COMMAND")
			}
			if kind == "exec" {
				if *format == "" {
					return nil, cli.UsageErrorf("exec: needs --format dotenv, yaml or json")
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
				return nil, cli.UsageErrorf("%s: its name does not say its format: say --format dotenv, yaml or json", location)
			}
			stores = append(stores, store.File{Path: path, Format: fileFormat})
		}
		if len(stores) == 0 {
			return nil, cli.UsageErrorf("--store is missing: dir:PATH, file:PATH or exec:COMMAND")
		}
		return stores, nil
	}
}

// addSocketFlag adds --socket. It returns a function that reads it after parsing.
func addSocketFlag(c *cobra.Command) func() (string, error) {
	socketArg := c.Flags().String("socket", "", "the broker's admin socket (default: /run/keyhatch/admin/admin.sock for root, else below $XDG_RUNTIME_DIR)")
	return func() (string, error) {
		if *socketArg != "" {
			return *socketArg, nil
		}
		if path := cli.DefaultAdminSocket(); path != "" {
			return path, nil
		}
		return "", cli.UsageErrorf("neither --socket nor XDG_RUNTIME_DIR says where the admin socket is")
	}
}
