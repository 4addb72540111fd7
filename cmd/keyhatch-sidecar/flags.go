package main

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/sidecar/store"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// addDirFlag adds the flag --store to a command that works only with a directory. It returns
// a function that returns the selected directory. Parse the flags before calling the returned
// function.
func addDirFlag(c *cobra.Command) func() (store.Dir, error) {
	storeArgs := c.Flags().StringArray("store", nil, "`STORE` directory, in the form dir:PATH (required)")
	return func() (store.Dir, error) {
		switch len(*storeArgs) {
		case 0:
			return store.Dir{}, cli.UsageErrorf("missing flag: --store dir:PATH")
		case 1:
		default:
			return store.Dir{}, cli.UsageErrorf("this command works only with one directory: use --store only once")
		}
		path, ok := strings.CutPrefix((*storeArgs)[0], "dir:")
		if !ok || path == "" {
			return store.Dir{}, cli.UsageErrorf("--store must be dir:PATH, because this command works only with a directory")
		}
		path, err := storePath("dir", path)
		return store.Dir{Path: path}, err
	}
}

// addStoreFlags adds the flags that select and configure stores. It returns these flags, and
// a function that returns all selected stores. Parse the flags before calling the returned
// function.
func addStoreFlags(c *cobra.Command) (flags *pflag.FlagSet, getStores func() (store.Merged, error)) {
	flags = pflag.NewFlagSet("", pflag.ContinueOnError)
	defer c.Flags().AddFlagSet(flags)
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 { // the error does not contain the argument, because a command can contain a secret
			return cli.UsageErrorf("unexpected argument: write --store before each store")
		}
		return nil
	}
	storeArgs := flags.StringArray("store", nil, "`STORE` to read: "+storeForms()+"; repeat the flag to merge stores (required)")
	format := flags.String("format", "", "`FORMAT` of an exec:COMMAND store, or of a file:PATH store with an unknown extension: dotenv, yaml, or json")
	watchArgs := flags.StringArray("watch", nil, "watch the file or directory `PATH`, and run the command of an exec:COMMAND store again when PATH changes; repeat the flag to watch several paths")
	timeout := flags.Duration("timeout", 30*time.Second, "maximum run time of the command of an exec:COMMAND store")
	keepNewline := flags.Bool("keep-newline", false, "in dir:PATH stores, make the newline at the end of a file a part of the secret")
	return flags, func() (store.Merged, error) {
		options := storeOptions{format: store.Format(*format), timeout: *timeout, keepNewline: *keepNewline}
		switch options.format {
		case "", store.Dotenv, store.YAML, store.JSON:
		default:
			return nil, cli.UsageErrorf("--format must be dotenv, yaml, or json")
		}
		if options.timeout <= 0 {
			return nil, cli.UsageErrorf("--timeout must be greater than 0")
		}
		for _, path := range *watchArgs {
			path, err := filepath.Abs(path)
			if err != nil {
				return nil, err
			}
			options.watchPaths = append(options.watchPaths, path)
		}
		var stores store.Merged
		for _, arg := range *storeArgs {
			opened, err := openStore(arg, options)
			if err != nil {
				return nil, err
			}
			stores = append(stores, opened)
		}
		if len(stores) == 0 {
			return nil, cli.UsageErrorf("missing flag: --store %s", storeForms())
		}
		return stores, nil
	}
}

// addSocketFlags adds the flags --socket and --admin-token-file. It returns a function that
// returns the path of the admin socket, and the file with the admin token. Parse the flags before
// calling the returned function.
func addSocketFlags(c *cobra.Command) func() (socket, tokenFile string, err error) {
	socketArg := c.Flags().String("socket", "", "`PATH` of the admin socket (default: /run/keyhatch/admin/admin.sock for root, otherwise $XDG_RUNTIME_DIR/keyhatch/admin/admin.sock)")
	tokenFileArg := new(string)
	cli.AddTokenFileFlag(c.Flags(), tokenFileArg, cli.TokenFileUsage)
	return func() (string, string, error) {
		if *socketArg != "" {
			return *socketArg, *tokenFileArg, nil
		}
		if path := cli.DefaultAdminSocket(); path != "" {
			return path, *tokenFileArg, nil
		}
		return "", "", cli.NoSocketError()
	}
}
