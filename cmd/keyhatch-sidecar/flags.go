package main

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/spf13/cobra"
)

// dirFlag adds --store for the commands that edit one, and returns what reads
// it.
func dirFlag(c *cobra.Command) func() (store.Dir, error) {
	spec := c.Flags().String("store", "", "the store: dir:PATH")
	return func() (store.Dir, error) {
		path, ok := strings.CutPrefix(*spec, "dir:")
		if !ok || path == "" {
			return store.Dir{}, cli.Usage("--store must be dir:PATH")
		}
		path, err := filepath.Abs(path)
		return store.Dir{Path: path}, err
	}
}

// storeFlags adds the flags that say which stores there are, and returns what
// reads them.
func storeFlags(c *cobra.Command) func() (store.Store, error) {
	f := c.Flags()
	stores := f.StringArray("store", nil, "dir:PATH, file:PATH or exec:COMMAND; several are merged")
	format := f.String("format", "", "dotenv, yaml or json, where a file's name does not say it, and for commands")
	watch := f.StringArray("watch", nil, "a file or directory whose change means that commands are to be run again")
	timeout := f.Duration("timeout", 30*time.Second, "how long a command may take")
	keepNewline := f.Bool("keep-newline", false, "take the files of directories as they are, to the last newline")
	return func() (store.Store, error) {
		var paths []string
		for _, path := range *watch {
			path, err := filepath.Abs(path)
			if err != nil {
				return nil, err
			}
			paths = append(paths, path)
		}
		switch *format {
		case "", string(store.Dotenv), string(store.YAML), string(store.JSON):
		default:
			return nil, cli.Usage("--format must be dotenv, yaml or json")
		}
		if *timeout <= 0 {
			return nil, cli.Usage("--timeout must be more than 0")
		}
		var all store.Merged
		for _, one := range *stores {
			kind, rest, _ := strings.Cut(one, ":")
			if rest == "" || (kind != "dir" && kind != "file" && kind != "exec") {
				return nil, cli.Usage("--store must be dir:PATH, file:PATH or exec:COMMAND")
			}
			if kind == "exec" {
				if *format == "" {
					return nil, cli.Usage("exec: needs --format dotenv, yaml or json")
				}
				all = append(all, store.Exec{Command: rest, Format: store.Format(*format), WatchPaths: paths, Timeout: *timeout})
				continue
			}
			path, err := filepath.Abs(rest)
			if err != nil {
				return nil, err
			}
			if kind == "dir" {
				all = append(all, store.Dir{Path: path, KeepNewline: *keepNewline})
				continue
			}
			as := store.Format(*format)
			if byName := store.FormatOf(path); byName != "" {
				as = byName
			}
			if as == "" {
				return nil, cli.Usage("%s: its name does not say its format: say --format dotenv, yaml or json", rest)
			}
			all = append(all, store.File{Path: path, Format: as})
		}
		if len(all) == 0 {
			return nil, cli.Usage("--store is missing: dir:PATH, file:PATH or exec:COMMAND")
		}
		return all, nil
	}
}

// socketFlag adds --socket and returns what reads it.
func socketFlag(c *cobra.Command) func() (string, error) {
	socket := c.Flags().String("socket", "", "the broker's admin socket (default: /run/keyhatch/admin/admin.sock for root, else below $XDG_RUNTIME_DIR)")
	return func() (string, error) {
		if *socket != "" {
			return *socket, nil
		}
		if path := cli.DefaultAdminSocket(); path != "" {
			return path, nil
		}
		return "", cli.Usage("neither --socket nor XDG_RUNTIME_DIR says where the admin socket is")
	}
}
